"""Where the CPU path attaches to SGLang: one entry per seam, and the check that it took effect.

SGLang logs a plugin hook that fails and serves on without it, which here would mean wrong answers
or a crash long after start. So every seam is resolved again after attaching and compared.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Seam:
    """One place in SGLang that runs our code.

    Attributes:
        target: dotted path of a function, method or class; for `entry`, a dictionary and its key
            as ``package.module.TABLE[key]``.
        kind: `around` and `replace` go through SGLang's HookRegistry; `entry` wraps a value in a
            table that SGLang looks functions up in.
        hook: dotted name in this package of what runs there.
        why: what happens on CPU without it.
        seen_at: other dotted paths that must lead to the same object, since SGLang calls it there.
    """

    target: str
    kind: Literal["around", "replace", "entry"]
    hook: str
    why: str
    seen_at: tuple[str, ...] = ()

    def load_hook(self) -> Callable[..., Any]:
        module, name = self.hook.rsplit(".", 1)
        return getattr(importlib.import_module(module), name)

    def attach(self) -> None:
        """Register the hook; `around` and `replace` take effect with HookRegistry.apply_hooks().

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
