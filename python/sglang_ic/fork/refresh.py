"""Rewrite patches from trees: the maintainer's side of the series.

A refreshed patch is its header as it was, then `differ.render_file` of every file it changes, by
path. At the pin that is the same bytes; after `UPSTREAM` moved, hunks that still have one possible
place get new line numbers and blob ids, and the others are named.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from . import ForkError
from .apply import Overlay, apply_patch
from .differ import render_file
from .patchfile import Patch, parse_patch
from .upstream import Pin


def refresh_series(tree: Overlay, patches: Iterable[Patch]) -> list[bytes]:
    """Return each patch's text regenerated on `tree`, in order; raises before anything is lost.

    Raises:
        ForkError: naming the patch, file and hunk that has no place, or more than one.
    """
    texts: list[bytes] = []
    for patch in patches:
        layer = Overlay(tree.read)
        apply_patch(layer, patch, relocate=True)
        texts.append(render_patch(patch.name, patch.header, tree, layer.changed))
        tree.changed.update(layer.changed)
    return texts


def render_patch(
    name: str, header: bytes, tree: Overlay, changed: Mapping[str, bytes | None]
) -> bytes:
    """Return the patch text that turns `tree` into `tree` with `changed`."""
    blocks = [
        render_file(path, tree.read(path), after)
        for path, after in sorted(changed.items())
        if tree.read(path) != after
    ]
    if not blocks:
        raise ForkError(f"{name}: changes nothing: edit the tree, or drop it from the series")
    return header + b"".join(blocks)


def edited_files(
    tree: Overlay, paths: Iterable[str], folder: Path, pin: Pin
) -> dict[str, bytes | None]:
    """Compare an edited copy with `tree`.

    Args:
        tree: upstream with the earlier patches applied.
        paths: every file of `tree` under the package.
        folder: holds the edited `<package>/` directory, complete: a file missing there is deleted.
    Returns:
        path -> new content, None when deleted; byte code, caches and the version file do not count.
    """
    if not (folder / pin.version_file).is_file():
        raise ForkError(f"{folder}: holds no {pin.version_file}: make a tree with `unpack`")
    theirs = {
        path.relative_to(folder).as_posix()
        for path in (folder / pin.package).rglob("*")
        if path.is_file() and not _is_litter(path)
    }
    changed: dict[str, bytes | None] = {}
    for path in sorted(theirs | set(paths)):
        after = (folder / path).read_bytes() if path in theirs else None
        before = tree.read(path)
        if before == after or path == pin.version_file:
            continue
        if any(b"\0" in side for side in (before, after) if side):
            raise ForkError(f"{folder / path}: differs and is binary: patches hold text only")
        changed[path] = after
    return changed


def _is_litter(path: Path) -> bool:
    """Whether running or editing left the file there."""
    return "__pycache__" in path.parts or path.suffix in {".pyc", ".orig", ".rej", ".swp", ".bak"}


def check_renders_back(name: str, text: bytes, tree: Overlay, pin: Pin) -> Patch:
    """Parse a text we are about to write and apply it to `tree`, exactly, before it is written."""
    patch = parse_patch(name, text, pin.package)
    apply_patch(tree, patch)
    return patch
