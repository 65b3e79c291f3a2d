"""What check_release.py, run by release.yml before anything is built, lets through and refuses."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".github/check_release.py"

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")


class Repository:
    """A repository with the files that the script reads, and a commit with a tag on request."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / ".github").mkdir()
        shutil.copy(SCRIPT, root / ".github")
        self.git("init", "--quiet", "--initial-branch=main")
        self.write("patches/series", "a.patch\n")
        self.write("patches/a.patch", "one\n")
        self.pin(fork=1)
        self.version("0.1.0")

    def git(self, *words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=self.root, check=True)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def version(self, project: str, package: str | None = None) -> None:
        self.write("pyproject.toml", f'[project]\nname = "sglang_ic"\nversion = "{project}"\n')
        self.write("python/sglang_ic/__init__.py", f'__version__ = "{package or project}"\n')

    def pin(self, fork: int, upstream: str = "0.5.23") -> None:
        self.write("patches/UPSTREAM", f'version = "{upstream}"\nfork = {fork}\n')

    def tag(self, name: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", name)
        self.git("tag", name)

    def check(self, *words: str) -> list[str]:
        script = self.root / ".github" / SCRIPT.name
        done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
        assert done.returncode == (2 if done.stderr else 0)
        return done.stderr.splitlines()


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


@pytest.fixture
def released(repository):
    repository.tag("v0.1.0")
    repository.version("0.2.0")
    return repository


def test_a_first_release_of_the_version_in_the_tree_passes(repository):
    repository.tag("v0.1.0")
    assert repository.check("v0.1.0") == []


def test_a_tag_that_is_not_the_version_is_refused(repository):
    repository.version("0.1.0", package="0.0.9")
    repository.tag("v0.1.0")
    assert repository.check("v0.1.0") == [
        "error: v0.1.0 is not v0.0.9, the version in sglang_ic.__version__"
    ]
    repository.tag("v0.2.0")
    assert len(repository.check("v0.2.0")) == 2


def test_a_series_that_changed_needs_a_new_fork_number(released):
    released.write("patches/a.patch", "two\n")
    released.tag("v0.2.0")
    assert released.check("v0.2.0") == [
        "error: patches/a.patch differs from v0.1.0, which published 0.5.23+ic.1: "
        "raise fork = 1 in patches/UPSTREAM"
    ]


@pytest.mark.parametrize("pin", [{"fork": 2}, {"fork": 1, "upstream": "0.5.24"}])
def test_a_new_fork_number_or_upstream_may_have_another_series(released, pin):
    released.write("patches/a.patch", "two\n")
    released.pin(**pin)
    released.tag("v0.2.0")
    assert released.check("v0.2.0") == []


def test_a_fork_number_that_falls_back_is_refused(released):
    released.pin(fork=2)
    released.tag("v0.2.0")
    released.version("0.3.0")
    released.pin(fork=1)
    released.write("patches/series", "")
    released.tag("v0.3.0")
    assert "raise fork = 1" in released.check("v0.3.0")[0]


def test_text_beside_the_patches_may_change(released):
    released.write("patches/README.md", "new\n")
    released.tag("v0.2.0")
    assert released.check("v0.2.0") == []


def test_without_a_tag_of_this_repository_nothing_is_said_to_be_right(repository):
    repository.tag("other")
    assert repository.check("v0.1.0") == ["error: v0.1.0 is not a tag of this repository"]
    assert repository.check()[0].startswith("usage:")
