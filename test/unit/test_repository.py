"""What the root files say about the repository is true. Pure Python."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Listed by the folder's line: data for tests, tests that mirror the package, results, and the model
# that its own card describes.
FOLDERS = ("test/standins", "test/unit", "benchmark/reports", "python/sglang_ic/demo/model")


def tree_paths() -> list[str]:
    """The paths of the README's tree, from its indentation (two spaces a level)."""
    block = re.search(r"```\n(python/sglang_ic/.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    stack: list[str] = []
    found = []
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        stack[depth:] = [name]
        found.append("".join(stack))
    return found


def test_every_path_of_the_tree_exists():
    missing = [path for path in tree_paths() if not (ROOT / path).exists()]
    assert not missing


def test_every_file_has_a_line_in_the_tree():
    listed = set(tree_paths())
    files = [
        path.relative_to(ROOT).as_posix()
        for folder in ("python/sglang_ic", "patches", "benchmark", "test", "docker", "requirements")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "__init__.py"
    ]
    unlisted = [
        path
        for path in files
        if path not in listed
        and not path.startswith(tuple(f"{folder}/" for folder in FOLDERS))
        and not (path.startswith("patches/") and path.endswith(".patch"))
    ]
    assert not unlisted


def test_the_changelog_names_the_pinned_upstream():
    pin = re.search(r'^version = "(.*)"', (ROOT / "patches/UPSTREAM").read_text(), re.M)[1]
    assert f"SGLang {pin}" in (ROOT / "CHANGELOG.md").read_text()
    from sglang_ic.seams import UPSTREAM_VERSION

    assert pin == UPSTREAM_VERSION
