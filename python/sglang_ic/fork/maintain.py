"""The maintainer's commands: `unpack` a tree, edit it, `diff` it to a patch, `refresh` the series.

    python -m sglang_ic.fork unpack --out TREE             upstream with the whole series applied
    $EDITOR TREE/sglang/...
    python -m sglang_ic.fork diff --tree TREE --name dsa-carry-topk.patch

A new name goes to the end of `patches/series` with a header to fill in; a listed one keeps its
header. To edit a patch in the middle: `unpack --through NAME`, edit, `diff --name NAME`, `refresh`.
"""

import shutil
from pathlib import Path

from . import ForkError
from .apply import Overlay, apply_series
from .files import write_atomic
from .header import template
from .ledger import refreshed_ledger
from .refresh import check_renders_back, edited_files, refresh_series, render_patch
from .series import check_slug, load_patch, load_series, read_series
from .upstream import Pin
from .wheel import WheelTree


def unpack(pin: Pin, patches: Path, wheel: Path, out: Path, through: str | None) -> int:
    """Unpack upstream with the series up to `through` applied; return how many patches that is.

    Raises:
        ForkError: `out` exists and is not empty, or `through` is not in the series.
    """
    names = read_series(patches)
    if through is not None and through not in names:
        listed = ", ".join(names) or "nothing"
        raise ForkError(f"--through {through!r}: not in {patches / 'series'}: it lists {listed}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ForkError(f"{out}: is there and not an empty directory: name another or remove it")
    count = names.index(through) + 1 if through else len(names)
    series = [load_patch(patches / name, pin) for name in names[:count]]
    with WheelTree(wheel) as upstream:
        changed = apply_series(Overlay(upstream.read), series).changed
        upstream.archive.extractall(out)
    shutil.rmtree(out / pin.upstream_dist_info)  # the edited tree is no installation
    for path, data in changed.items():
        if data is None:
            (out / path).unlink()
        else:
            write_atomic(out / path, data)
    return count


def diff(pin: Pin, patches: Path, wheel: Path, tree: Path, name: str) -> str:
    """Write what `tree` changes after the earlier patches as patch `name`; return what was done."""
    check_slug(name, "--name")
    names = read_series(patches)
    is_new = name not in names
    earlier = names if is_new else names[: names.index(name)]
    header = template(name) if is_new else load_patch(patches / name, pin).header
    with WheelTree(wheel) as upstream:
        base = apply_series(Overlay(upstream.read), [load_patch(patches / n, pin) for n in earlier])
        paths = {path for path in (*upstream.paths(pin.package), *base.changed)}
        changed = edited_files(base, paths, tree, pin)
        text = render_patch(name, header, base, changed)
        hunks = sum(len(file.hunks) for file in check_renders_back(name, text, base, pin).files)
    write_atomic(patches / name, text)
    if is_new:
        listed = (patches / "series").read_text(encoding="utf-8")
        gap = "" if listed.endswith("\n") or not listed else "\n"
        write_atomic(patches / "series", f"{listed}{gap}{name}\n".encode())
    what = "new, added to series; fill in its header" if is_new else "rewritten, header kept"
    return f"{patches / name}: {what}: {len(changed)} files, {hunks} hunks"


def refresh(pin: Pin, patches: Path, wheel: Path) -> list[str]:
    """Regenerate every patch and the ledger, all or none; return one line for each."""
    series = load_series(patches, pin)
    with WheelTree(wheel) as upstream:
        texts = refresh_series(Overlay(upstream.read), series)
        base = Overlay(upstream.read)
        pairs = zip(series, texts, strict=True)
        fresh = [check_renders_back(patch.name, text, base, pin) for patch, text in pairs]
    readme = patches / "README.md"
    outputs = {patches / patch.name: patch.raw for patch in fresh}
    if readme.is_file():
        outputs[readme] = refreshed_ledger(readme, fresh)
    lines = []
    for path, data in outputs.items():
        same = path.read_bytes() == data
        if not same:
            write_atomic(path, data)
        lines.append(f"{path.name}: {'unchanged' if same else 'rewritten'}")
    return lines
