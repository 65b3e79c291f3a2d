"""How the build steps are fitted to a machine: checkouts without git, pip's own index, Python."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from _dockerfile import parse, sources
from _machine import build_arguments, checkout_files, interpreter_on_path, pip_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path):
    for name in ("src/a.py", "src/deep/b.txt", "src/__pycache__/a.pyc", "src/x.egg-info/PKG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "src/link").symlink_to("deep")
    (tmp_path / "single").touch()
    (tmp_path / ".gitignore").write_text("__pycache__/\n*.egg-info/\n")
    return tmp_path


EXPECTED = ["src/a.py", "src/deep/b.txt", "src/link"]


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_files_are_those_that_git_would_commit(tree):
    subprocess.run(["git", "init", "--quiet", tree], check=True)
    assert checkout_files(tree, "src") == EXPECTED
    assert checkout_files(tree, "single") == ["single"]
    assert checkout_files(tree, "src/__pycache__") == []


def test_a_tarball_has_the_same_files(tree, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tree.parent))  # nor one further up
    assert checkout_files(tree, "src") == EXPECTED
    assert checkout_files(tree, "single") == ["single"]
    assert checkout_files(tree, "none") == []


def test_a_git_that_refuses_or_is_missing_is_done_without(tree, monkeypatch):
    bin = tree / "bin"
    bin.mkdir()
    monkeypatch.setenv("PATH", str(bin))
    assert checkout_files(tree, "src") == EXPECTED
    (bin / "git").write_text("#!/bin/sh\necho dubious ownership >&2\nexit 128\n")
    (bin / "git").chmod(0o755)
    assert checkout_files(tree, "src") == EXPECTED


def test_this_checkout_has_the_same_files_with_and_without_git(monkeypatch):
    copied = sources(parse((ROOT / "docker/Dockerfile.cpu").read_text()))
    with_git = {source: checkout_files(ROOT, source) for source in copied}
    monkeypatch.setenv("PATH", "")
    assert {source: checkout_files(ROOT, source) for source in copied} == with_git
    assert all(with_git.values())


@pytest.mark.parametrize(
    ("environment", "config", "extra"),
    [
        ({}, "global.timeout='60'\nglobal.find-links='/index-url='\n", None),
        ({}, "global.index-url='https://mirror/simple'\n", ""),
        ({}, "install.extra-index-url='https://more'\n", ""),
        ({}, ":env:.index-url='https://mirror/simple'\n", ""),
        ({"PIP_EXTRA_INDEX_URL": "https://x"}, "global.index-url='https://mirror'\n", "https://x"),
    ],
)
def test_an_index_of_pips_own_takes_the_place_of_pytorchs(environment, config, extra):
    given = build_arguments(Path("/p"), environment, config)
    assert given.get("PIP_EXTRA_INDEX_URL") == extra
    assert given["PREFIX"] == "/p"


def test_pip_tells_also_what_variables_say():
    told = pip_config(
        {"PIP_INDEX_URL": "https://mirror.example/simple", "PIP_CONFIG_FILE": "/dev/null"}
    )
    assert build_arguments(Path("/p"), {}, told)["PIP_EXTRA_INDEX_URL"] == ""


def test_the_interpreter_is_found_by_the_name_that_the_steps_type(tmp_path):
    interpreter_on_path(tmp_path, "python9.9")
    code = "import sys; print(sys.version_info[:2], sys.prefix == sys.base_prefix)"
    done = subprocess.run([tmp_path / "python9.9", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == f"{sys.version_info[:2]} True"
