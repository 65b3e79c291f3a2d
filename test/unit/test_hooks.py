"""A hook that did not attach stops the process. Needs SGLang, patched or not."""

import json as victim_module

import pytest

from sglang_ic import hooks
from sglang_ic.hooks import Hook, attach, is_attached


@pytest.fixture(autouse=True)
def _registry():
    from sglang.srt.plugins.hook_registry import HookRegistry

    saved = dict(HookRegistry._hooks), set(HookRegistry._patched)
    original = victim_module.dumps
    yield
    victim_module.dumps = original
    HookRegistry._hooks.clear()
    HookRegistry._hooks.update(saved[0])
    HookRegistry._patched = saved[1]


def around(original, *args, **kwargs):
    return "ours:" + original(*args, **kwargs)


def test_a_hook_that_takes_effect_is_seen():
    hook = Hook("json.dumps", around, "AROUND", "nothing")
    assert not is_attached(hook)
    attach([hook])
    assert is_attached(hook)
    assert victim_module.dumps({}) == "ours:{}"


@pytest.mark.parametrize("target", ["json.no_such_function", "no_such_module.function"])
def test_a_target_that_is_gone_stops_the_process(target):
    with pytest.raises(SystemExit, match=f"the hook on {target} did not attach .it would be bad"):
        attach([Hook(target, around, "AROUND", "it would be bad")])


def test_another_version_of_sglang_stops_the_process(monkeypatch):
    monkeypatch.setattr(hooks, "installed_version", lambda: "0.5.24")
    with pytest.raises(SystemExit, match="SGLang 0.5.24 is installed.*0.5.23 only"):
        attach([])


def test_the_patched_version_is_the_same_version(monkeypatch):
    monkeypatch.setattr(hooks, "installed_version", lambda: "0.5.23+ic.7")
    attach([])
