"""What an image's build steps meet on this machine instead of an engine: files, pip, Python.

A checkout may have no git (a tarball), or one that refuses ("dubious ownership"); pip may be set up
for an index of its own; and the interpreter that runs the tests need not be on the PATH.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# What .gitignore leaves out: made by tools, never copied into an image.
MADE = re.compile(
    r"(^|/)(\.venv[\w-]*|\.git|\.\w+_cache|\.cache|\.hypothesis|__pycache__|[^/]+\.egg-info)(/|$)"
)
INDEX = re.compile(r"^[\w:-]+\.(extra-)?index-url=", re.M)  # a line of `pip config list`


def checkout_files(root: Path, source: str) -> list[str]:
    """Files at or below `source` that git would commit; without git, all that no tool made."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", source]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return _walk(root, source)
    # --cached has also what was deleted since.
    return sorted({name for name in listed.stdout.split("\0") if name and _exists(root / name)})


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _walk(root: Path, source: str) -> list[str]:
    top = root / source
    if not top.is_dir():
        return [source] if _exists(top) else []
    found = []
    for folder, folders, files in os.walk(top):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        names = [Path(folder, name).relative_to(root).as_posix() for name in [*files, *links]]
        found += [name for name in names if not MADE.search(name)]
    return sorted(found)


def build_arguments(prefix: Path, environment: Mapping[str, str], pip_config: str) -> dict:
    """What `docker build --build-arg` would get here.

    An index that this machine's pip is set up with, in a file or in a variable, takes the place of
    the Dockerfile's second one, which may be out of reach; empty: pip asks its own settings.

    Args:
        pip_config: what `pip config list` prints, variables included.
    """
    given = {"PREFIX": str(prefix), "PIP_NO_CACHE_DIR": ""}
    if "PIP_EXTRA_INDEX_URL" in environment:
        given["PIP_EXTRA_INDEX_URL"] = environment["PIP_EXTRA_INDEX_URL"]
    elif INDEX.search(pip_config):
        given["PIP_EXTRA_INDEX_URL"] = ""
    return given


def pip_config(environment: Mapping[str, str]) -> str:
    ask = [sys.executable, "-m", "pip", "config", "list"]
    return subprocess.run(ask, env=environment, capture_output=True, text=True, check=True).stdout


def interpreter_on_path(folder: Path, name: str) -> None:
    """Puts the interpreter that this environment was made with into `folder`, under `name`.

    A script and not a link: venv looks for its library beside the program that runs.
    """
    program = folder / name
    program.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" "$@"\n')
    program.chmod(0o755)
