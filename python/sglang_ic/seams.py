"""Attach to SGLang where it offers hooks, and make sure that it worked.

SGLang logs a plugin hook that fails and serves on without it, which here would mean wrong answers
or a crash long after start. So each place that runs our code is one `Seam`: after attaching, every
seam is resolved again and compared, and the process stops if one of them is not ours.
"""

import functools
import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

UPSTREAM_VERSION = "0.5.23"


@dataclass(frozen=True)
class Seam:
    """One place in SGLang that runs our code.

    Attributes:
        target: dotted path of a function, method or class; for `entry`, a dictionary and its key
            as ``package.module.TABLE[key]``.
        kind: `after`, `around` and `replace` go through SGLang's HookRegistry; `entry` wraps a
            value in a table that SGLang looks functions up in.
        hook: dotted name in this package of what runs there.
        why: what happens without it.
        seen_at: other dotted paths that must lead to the same object, since SGLang calls it there.
    """

    target: str
    kind: Literal["after", "around", "replace", "entry"]
    hook: str
    why: str
    seen_at: tuple[str, ...] = ()

    def load_hook(self) -> Callable[..., Any]:
        module, name = self.hook.rsplit(".", 1)
        return getattr(importlib.import_module(module), name)

    def attach(self) -> None:
        """Register the hook; all but `entry` take effect with HookRegistry.apply_hooks().

        A target that is not there is left alone: `problem` says so.
        """
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        hook = self.load_hook()
        if self.kind == "entry":
            path, key = self.target.rstrip("]").split("[")
            table = pkgutil.resolve_name(path)
            if key in table:
                table[key] = _wrap_entry(table[key], hook)
        else:
            HookRegistry.register(self.target, hook, HookType(self.kind))

    def problem(self) -> str | None:
        """Why this seam is not ours, in a few words; None when it is."""
        hook = self.load_hook()
        for path in (self.target, *self.seen_at):
            try:
                found = _resolve(path)
            except (ImportError, AttributeError, KeyError) as error:
                return f"{path} cannot be resolved ({type(error).__name__}: {error})"
            if not _runs(found, hook):
                return f"{path} does not run {self.hook}"
        return None


def attach(seams: tuple[Seam, ...], purpose: str) -> None:
    """Attach those of `seams` that are not attached yet, then check them all.

    Args:
        purpose: what they are for, in words that follow "cannot attach".
    Raises:
        SystemExit: with one line, if SGLang is another version or a seam is not ours afterwards.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry

    check_version()
    for seam in seams:  # all of them before the first is attached: half of ours would be served
        try:
            seam.load_hook()
        except Exception as error:
            refuse(f"cannot attach {purpose}: {seam.hook} does not load ({error!r})")
    for seam in seams:
        if seam.problem() is not None:
            seam.attach()
    # Apply now: what is left to SGLang is applied after our last chance to look.
    HookRegistry.apply_hooks()
    for seam in seams:
        if (problem := seam.problem()) is not None:
            refuse(
                f"cannot attach {purpose} to SGLang {installed_version()}: {problem}; "
                f"without it, {seam.why}"
            )


def installed_version() -> str:
    """Version of the SGLang that this process runs, e.g. ``0.5.23+ic.1``."""
    try:
        return importlib.metadata.version("sglang")
    except importlib.metadata.PackageNotFoundError:
        # A tree unpacked without its dist-info (an offline machine).
        from sglang.version import __version__

        return __version__


def check_version() -> None:
    """Stop unless this is the SGLang that the seams were written against."""
    version = installed_version()
    if version.partition("+")[0] != UPSTREAM_VERSION:
        refuse(
            f"SGLang {version} is installed, but this package attaches to {UPSTREAM_VERSION} only; "
            f"install sglang=={UPSTREAM_VERSION} or take sglang_ic out of SGLANG_PLUGINS"
        )


def refuse(message: str) -> NoReturn:
    """Stop this process with one line and exit code 2: SGLang would swallow another exception."""
    refusal = SystemExit(f"sglang_ic: {message}")
    print(refusal, file=sys.stderr, flush=True)
    refusal.code = 2  # of a message it would be 1
    raise refusal


def _resolve(path: str) -> Any:
    name, bracket, key = path.rstrip("]").partition("[")
    found = pkgutil.resolve_name(name)
    return found[key] if bracket else found


def _wrap_entry(original: Callable[..., Any], hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapper(*args, **kwargs):
        return hook(original, *args, **kwargs)

    return wrapper


def _runs(found: Any, hook: Any) -> bool:
    """Is `found` the hook, or a chain of wrappers with the hook in it?

    HookRegistry closes its wrappers over the hook and links them with `__wrapped__`; another
    plugin's wrapper around ours is fine.
    """
    while found is not None:
        if found is hook:
            return True
        cells = getattr(found, "__closure__", None) or ()
        if any(cell.cell_contents is hook for cell in cells):
            return True
        found = getattr(found, "__wrapped__", None)
    return False
