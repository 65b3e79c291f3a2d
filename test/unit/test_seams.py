"""A seam that did not attach stops the process. Needs SGLang, patched or not."""

import sys
from types import ModuleType

import pytest

from sglang_ic import seams
from sglang_ic.seams import Seam, attach

pytest.importorskip("sglang.srt.plugins.hook_registry", exc_type=ImportError)


victim_module = ModuleType("victim_of_seams")


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """SGLang replaces a function wherever it was imported, so it must be one that nobody uses."""
    monkeypatch.setitem(sys.modules, victim_module.__name__, victim_module)
    from sglang.srt.plugins.hook_registry import HookRegistry

    saved = dict(HookRegistry._hooks), set(HookRegistry._patched)
    victim_module.dumps = lambda found: str(found)
    victim_module.dump = lambda found, file: file.write(str(found))
    yield
    HookRegistry._hooks.clear()
    HookRegistry._hooks.update(saved[0])
    HookRegistry._patched = saved[1]


def around(original, *args, **kwargs):
    return "ours:" + original(*args, **kwargs)


@pytest.fixture(autouse=True)
def _our_hook(monkeypatch):
    monkeypatch.setattr(seams, "test_hook", around, raising=False)


def seam(target):
    return Seam(target, "around", "sglang_ic.seams.test_hook", "it would be bad")


def test_a_hook_that_takes_effect_is_seen():
    hook = seam("victim_of_seams.dumps")
    assert hook.problem() is not None
    attach((hook,), "a test")
    assert hook.problem() is None
    assert victim_module.dumps({}) == "ours:{}"


@pytest.mark.parametrize("hook", ["sglang_ic.nowhere.hook", "sglang_ic.seams.no_such_hook"])
def test_a_hook_that_does_not_load_stops_before_any_is_attached(hook):
    broken = Seam("victim_of_seams.dump", "around", hook, "it would be bad")
    with pytest.raises(SystemExit, match=f"cannot attach a test: {hook} does not load"):
        attach((seam("victim_of_seams.dumps"), broken), "a test")
    assert victim_module.dumps({}) == "{}"


def test_attaching_twice_is_once():
    attach((seam("victim_of_seams.dumps"),), "a test")
    attach((seam("victim_of_seams.dumps"),), "a test")
    assert victim_module.dumps({}) == "ours:{}"


@pytest.mark.parametrize("target", ["victim_of_seams.no_such_function", "no_such_module.function"])
def test_a_target_that_is_gone_stops_the_process(target):
    with pytest.raises(SystemExit) as stopped:
        attach((seam(target),), "a test")
    message = str(stopped.value)
    assert message.startswith("sglang_ic: cannot attach a test to SGLang 0.5.23")
    assert target in message and message.endswith("without it, it would be bad")


def test_another_version_of_sglang_stops_the_process_with_one_line(monkeypatch, capsys):
    monkeypatch.setattr(seams, "installed_version", lambda: "0.5.24")
    with pytest.raises(SystemExit, match="SGLang 0.5.24 is installed.*0.5.23 only") as stopped:
        attach((), "a test")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"{stopped.value}\n"


def test_the_patched_version_is_the_same_version(monkeypatch):
    monkeypatch.setattr(seams, "installed_version", lambda: "0.5.23+ic.7")
    attach((), "a test")
