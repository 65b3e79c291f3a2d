"""May this tag be published? It names the version in the tree, and no wheel comes out twice.

    python .github/check_release.py v0.1.0

A wheel's name holds the version, so two contents under one version could not be told apart:
`vX.Y.Z` is the version in pyproject.toml and in the package, and a series that differs from the
one of the release before needs another `fork = N` (or another upstream) in patches/UPSTREAM.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def git(*words: str, may_fail: bool = False) -> str:
    """What git prints; empty where it fails and may."""
    quiet = subprocess.DEVNULL if may_fail else None
    done = subprocess.run(
        ["git", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=quiet,
        text=True,
        check=not may_fail,
    )
    return done.stdout.strip()


def version_complaints(tag: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "python" / project["name"] / "__init__.py").read_text()
    package = re.search(r'^__version__ = "(.*)"', text, re.M)
    written = {
        "pyproject.toml": project["version"],
        f"{project['name']}.__version__": package[1] if package else None,
    }
    return [
        f"{tag} is not v{version}, the version in {place}"
        for place, version in written.items()
        if tag != f"v{version}"
    ]


def fork_complaints(tag: str) -> list[str]:
    """Nothing for a first release: there is no wheel to be confused with."""
    if not git("rev-parse", "--verify", f"refs/tags/{tag}", may_fail=True):
        return [f"{tag} is not a tag of this repository"]
    before = git("describe", "--tags", "--abbrev=0", "--match=v*", f"{tag}^", may_fail=True)
    if not before:
        return []
    changed = git("diff", "--name-only", before, tag, "--", "patches/*.patch", "patches/series")
    old, new = (tomllib.loads(git("show", f"{one}:patches/UPSTREAM")) for one in (before, tag))
    if not changed or new["version"] != old["version"] or new["fork"] > old["fork"]:
        return []
    return [
        f"{changed.splitlines()[0]} differs from {before}, which published "
        f"{old['version']}+ic.{old['fork']}: raise fork = {new['fork']} in patches/UPSTREAM"
    ]


def main(words: list[str]) -> int:
    if len(words) != 1:
        print("usage: python .github/check_release.py TAG", file=sys.stderr)
        return 2
    found = version_complaints(words[0]) + fork_complaints(words[0])
    for one in found:
        print(f"error: {one}", file=sys.stderr)
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
