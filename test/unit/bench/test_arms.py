"""Arms as typed, and the command lines that they become."""

import pytest

from sglang_ic.bench.arms import Arm, ArmError, command, parse, parse_all

PLACE = dict(
    python="/ours/python",
    stock_python="/stock/python",
    model="MODEL",
    port=31000,
    flags=["--tp", "8"],
    stock_flags=["--device", "cpu"],
)


@pytest.mark.parametrize(
    ("text", "arm", "kind"),
    [
        ("full", Arm("full", pattern="full"), "launched"),
        ("1/4=folder/p.json@4", Arm("1/4", pattern="folder/p.json@4"), "launched"),
        ("preset:glm-5-1/4", Arm("preset:glm-5-1/4", pattern="preset:glm-5-1/4"), "launched"),
        ("stock", Arm("stock"), "stock"),
        ("upstream=stock", Arm("upstream"), "stock"),
        ("mine=http://host:1/", Arm("mine", url="http://host:1"), "url"),
        ("mine=https://host/a=b", Arm("mine", url="https://host/a=b"), "url"),
    ],
)
def test_parse(text, arm, kind):
    assert parse(text) == arm
    assert parse(text).kind == kind


@pytest.mark.parametrize("text", ["", "=x", "x=", "http://host:1"])
def test_an_arm_without_name_or_value_is_refused(text):
    with pytest.raises(ArmError, match="arm"):
        parse(text)


def test_the_control_repeats_the_first_arm_at_the_end():
    arms = parse_all(["full", "1/4=p.json"], control=True)
    assert [arm.name for arm in arms] == ["full", "1/4", "full (again)"]
    assert arms[-1].pattern == arms[0].pattern
    assert len(parse_all(["full", "1/4=p.json"], control=False)) == 2


def test_names_must_differ_and_one_arm_is_needed():
    with pytest.raises(ArmError, match="two arms are called 'full'"):
        parse_all(["full", "full"], control=False)
    with pytest.raises(ArmError, match="no --arm"):
        parse_all([], control=True)


def test_our_server_gets_the_pattern_and_upstreams_gets_stock_flags():
    ours = command(parse("1/4=p.json"), **PLACE)
    assert ours[:3] == ["/ours/python", "-m", "sglang_ic.launch_server"]
    assert ours[ours.index("--index-cache-pattern") + 1] == "p.json"
    assert "--device" not in ours
    stock = command(parse("stock"), **PLACE)
    assert stock[:3] == ["/stock/python", "-m", "sglang.launch_server"]
    assert "--index-cache-pattern" not in stock and stock[-2:] == ["--device", "cpu"]
    for words in (ours, stock):
        assert words[words.index("--host") + 1] == "127.0.0.1"
        assert words[words.index("--port") + 1] == "31000"
        assert words[words.index("--model-path") + 1] == "MODEL"
        assert "--tp" in words


def test_stock_without_an_interpreter_is_refused():
    with pytest.raises(ArmError, match="--stock-python"):
        command(parse("stock"), **{**PLACE, "stock_python": None})
