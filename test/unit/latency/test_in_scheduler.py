"""Roles set from outside: upstream's two attributes per layer, and the fork's own roles."""

from types import SimpleNamespace

import pytest

from sglang_ic.latency import in_scheduler
from sglang_ic.pattern import LayerPattern
from sglang_ic.runtime.roles import LayerRoles


def stock_model(num_layers: int) -> SimpleNamespace:
    """Every layer as upstream builds it when all are Full."""
    return SimpleNamespace(
        layers=[
            SimpleNamespace(
                self_attn=SimpleNamespace(skip_topk=False, next_skip_topk=False, indexer=object())
            )
            for _ in range(num_layers)
        ]
    )


@pytest.mark.parametrize("text", ["FFFF", "FSSF", "FSFS", "FSSS"])
def test_upstream_is_told_of_a_layer_and_of_the_one_behind_it(text):
    model = stock_model(4)
    in_scheduler.set_roles(model, LayerPattern("FSSS"))  # what was set before must not stay
    in_scheduler.set_roles(model, LayerPattern(text))
    skips = [layer.self_attn.skip_topk for layer in model.layers]
    assert skips == [letter == "S" for letter in text]
    assert [one.self_attn.next_skip_topk for one in model.layers] == [*skips[1:], False]
    assert in_scheduler.running_pattern(model) == text


def test_the_fork_is_told_through_its_roles():
    roles = LayerRoles(LayerPattern("FFFF"), 0, 4, build_all=True)
    model = SimpleNamespace(index_cache_roles=roles)
    in_scheduler.set_roles(model, LayerPattern("FSSF"))
    assert in_scheduler.running_pattern(model) == str(roles.pattern) == "FSSF"


def test_a_server_whose_pattern_is_fixed_says_so():
    roles = LayerRoles(LayerPattern("FSFS"), 0, 4, build_all=False)
    with pytest.raises(ValueError, match="fixed"):
        in_scheduler.set_roles(SimpleNamespace(index_cache_roles=roles), LayerPattern("FFFF"))


def test_an_arm_that_is_not_there_or_a_busy_server_is_refused(monkeypatch):
    monkeypatch.setenv(in_scheduler.PATTERNS_VARIABLE, '["FF", "FS"]')
    idle = SimpleNamespace(is_fully_idle=lambda: True)
    assert in_scheduler.refusal(idle, 1) is None
    assert "not one of the 2 arms" in in_scheduler.refusal(idle, 2)
    busy = SimpleNamespace(is_fully_idle=lambda: False)
    assert in_scheduler.refusal(busy, 0) == "requests are running"
