"""The workflows in .github: they parse, are bounded and unprivileged, and name what exists."""

import fnmatch
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from _dockerfile import parse, sources

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
OTHERS = {"curl", "df", "gh", "sudo"}  # programs of the runner
RUNNER_MODULES = {"pip", "pytest"}


def load(path: Path) -> dict:
    return yaml.load(path.read_text(), yaml.BaseLoader)  # `on` is a word here, not a truth value


def jobs(path: Path):
    return load(path)["jobs"].items()


def steps(path: Path):
    return [step for _, job in jobs(path) for step in job["steps"]]


def complaints(command: str) -> list[str]:
    """What a `run:` line names that is not there."""
    words = shlex.split(command.split("#")[0])
    found = []
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        for target in [word for word in words[1:] if "=" not in word]:
            if not re.search(rf"^{target}:", makefile, re.M):
                found.append(f"make target {target}")
    elif words[:2] == ["python", "-m"]:
        if words[2] not in RUNNER_MODULES and not importlib.util.find_spec(words[2]):
            found.append(f"module {words[2]}")
    elif words[0] == "python":
        if not (ROOT / words[1]).is_file():
            found.append(f"script {words[1]}")
    elif words[0] not in OTHERS | {"docker"}:
        found.append(f"program {words[0]}")
    for word in words[1:]:
        is_ours = re.match(r"(docker|requirements|test|patches|python|benchmark)/", word)
        if is_ours and not list(ROOT.glob(word)):
            found.append(f"path {word}")
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_command_names_what_exists(path):
    for step in steps(path):
        for line in step.get("run", "").splitlines():
            assert complaints(line) == [], line


@pytest.mark.parametrize(
    "command",
    [
        "make no-such-target",
        "python -m sglang_ic.no_such_module",
        "python .github/none.py",
        "docker build -f docker/Dockerfile.none .",
        "python -m pytest test/none",
        "python -m pytest test/unit/none_*.py",
        "nose test",
    ],
)
def test_a_command_that_names_nothing_is_seen(command):
    assert complaints(command)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_runs_are_bounded_and_may_only_read(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] == "true"
    for name, job in jobs(path):
        assert 0 < int(job["timeout-minutes"]) <= 120, name
        assert not set(job.get("permissions", {})) - {"contents"}, name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_have_a_version(path):
    for step in steps(path):
        assert re.fullmatch(r"actions/[\w-]+@v\d+(\.\d+)*", step.get("uses", "actions/x@v1"))


def test_only_the_job_that_publishes_may_write():
    writers = [
        (path.name, name)
        for path in WORKFLOWS
        for name, job in jobs(path)
        if "write" in job.get("permissions", {}).values()
    ]
    assert writers == [("release.yml", "publish")]


def test_pull_requests_run_the_tests_and_build_the_images():
    on = {path.stem: load(path)["on"] for path in WORKFLOWS}
    assert "pull_request" in on["test"] and "pull_request" in on["images"]
    assert on["release"] == {"push": {"tags": ["v*"]}}
    runs = {path.stem: [step.get("run", "") for step in steps(path)] for path in WORKFLOWS}
    assert {"make lint", "make test"} <= set(runs["test"])
    for name in ("docker/Dockerfile", "docker/compose.yaml"):
        assert any(name in line for line in runs["images"])


def test_images_are_built_for_a_pull_request_that_changes_what_they_copy():
    paths = load(ROOT / ".github/workflows/images.yml")["on"]["pull_request"]["paths"]
    for name in ("Dockerfile", "Dockerfile.cpu"):
        for source in sources(parse((ROOT / "docker" / name).read_text())):
            is_text = source in ("README.md", "LICENSE")  # in a wheel's metadata, as they are
            assert is_text or any(fnmatch.fnmatch(f"{source}/", f"{one}*") for one in paths), source
    for one in paths:
        assert list(ROOT.glob(one)), one


def test_nothing_is_published_before_the_tag_and_the_tests_are_checked():
    release = load(ROOT / ".github/workflows/release.yml")["jobs"]
    assert (release["publish"]["needs"], release["wheels"]["needs"]) == ("wheels", "check")
    checkout, *_ = release["check"]["steps"]
    assert checkout["with"]["fetch-depth"] == "0"  # check_release.py looks at the tag before
    lines = [step.get("run", "") for step in release["check"]["steps"]]
    assert 'python .github/check_release.py "$GITHUB_REF_NAME"' in lines
    fork = load(ROOT / ".github/workflows/test.yml")["jobs"]["fork"]["steps"]
    pytest_lines = [step["run"] for step in fork if "pytest" in step.get("run", "")]
    assert pytest_lines and set(pytest_lines) <= set(lines)


def pythons() -> list[str]:
    """Versions of Python that upstream has pinned wheels for."""
    wheels = tomllib.loads((ROOT / "patches/UPSTREAM").read_text())["wheels"]
    return sorted({"3." + re.search(r"-cp3(\d+)-", name)[1] for name in wheels})


def test_pythons_are_those_of_the_pinned_wheels_and_of_the_lock():
    test, release = (load(ROOT / f".github/workflows/{name}.yml") for name in ("test", "release"))
    assert test["jobs"]["fork"]["strategy"]["matrix"]["python"] == pythons()
    lines = [step.get("run", "") for step in release["jobs"]["wheels"]["steps"]]
    assert [line.split()[-1] for line in lines if "--python-version" in line] == pythons()
    locked = re.search(r"Python (\d+\.\d+)", (ROOT / "requirements/cpu.txt").read_text())[1]
    for path in WORKFLOWS:
        for name, job in jobs(path):
            for step in job["steps"]:
                version = step.get("with", {}).get("python-version", locked)
                assert version in (locked, "${{ matrix.python }}"), (path.name, name)


def test_images_and_tests_take_pytorch_from_the_same_index():
    dockerfile = (ROOT / "docker/Dockerfile.cpu").read_text()
    index = re.search(r"^ARG PIP_EXTRA_INDEX_URL=(\S+)", dockerfile, re.M)[1]
    assert load(ROOT / ".github/workflows/test.yml")["env"] == {"PIP_EXTRA_INDEX_URL": index}
