"""Attach to SGLang through its plugin hooks, and make sure that it worked.

SGLang applies plugin hooks with ``HookRegistry`` and only logs one that fails
(``srt/plugins``). A hook of ours that is missing would leave a server that runs and answers
wrongly, so we apply ours at once, look at every target afterwards, and stop the process if one
of them is not ours.
"""

from __future__ import annotations

import importlib.metadata
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

UPSTREAM_VERSION = "0.5.23"


@dataclass(frozen=True)
class Hook:
    """One function of SGLang that we change while it runs.

    Attributes:
        target: dotted path of the function or method, e.g. ``sglang.srt.x.Class.method``.
        call: our function, in the signature that ``kind`` asks for.
        kind: name of a ``sglang.srt.plugins.hook_registry.HookType`` member.
        why: what would be wrong without it (shown when it does not attach).
    """

    target: str
    call: Callable
    kind: str
    why: str


def installed_version() -> str:
    """Version of the SGLang that this process runs, e.g. ``0.5.23+ic.1``."""
    try:
        return importlib.metadata.version("sglang")
    except importlib.metadata.PackageNotFoundError:
        # A tree unpacked without its dist-info (an offline machine).
        from sglang.version import __version__

        return __version__


def refuse(message: str) -> None:
    """Stop this process with one line: SGLang would swallow an ordinary exception here."""
    raise SystemExit(f"sglang_ic: {message}")


def check_version() -> None:
    """Refuse to attach to an SGLang other than the one that the hooks were written against."""
    version = installed_version()
    if version.partition("+")[0] != UPSTREAM_VERSION:
        refuse(
            f"SGLang {version} is installed, but this package attaches to {UPSTREAM_VERSION} only; "
            f"install sglang=={UPSTREAM_VERSION} or take sglang_ic out of SGLANG_PLUGINS"
        )


def attach(hooks: Sequence[Hook]) -> None:
    """Register ``hooks``, apply them now, and stop the process unless each one took effect."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    check_version()
    for hook in hooks:
        HookRegistry.register(hook.target, hook.call, HookType[hook.kind])
    HookRegistry.apply_hooks()
    for hook in hooks:
        if not is_attached(hook):
            refuse(
                f"the hook on {hook.target} did not attach ({hook.why}); "
                f"SGLang {installed_version()} differs from what this package knows"
            )


def is_attached(hook: Hook) -> bool:
    """Whether calling ``hook.target`` now goes through ``hook.call``.

    ``HookRegistry`` wraps functions in closures and swaps classes directly, so we follow
    ``__wrapped__`` and look for our callable in each closure.
    """
    try:
        found = pkgutil.resolve_name(hook.target)
    except (ImportError, AttributeError):
        return False
    while found is not None:
        if found is hook.call or hook.call in _closure_values(found):
            return True
        found = getattr(found, "__wrapped__", None)
    return False


def _closure_values(function: object) -> list[object]:
    cells = getattr(function, "__closure__", None) or ()
    return [cell.cell_contents for cell in cells]
