"""The order of visits: fair between arms, complete, and open where something is missing."""

import dataclasses

from sglang_ic.latency.plan import Arm, Part, Stage
from sglang_ic.latency.schedule import open_visits, visits
from sglang_ic.pattern import LayerPattern

PREFILL = Stage("prefill", 4096, rounds=2)
DECODE = Stage("decode", 2048, rounds=1, batch_sizes=(1, 4), new_tokens=32)


def arm(name: str, pattern: str = "FSFS") -> Arm:
    return Arm(name, name.split()[0], LayerPattern(pattern))


ARMS = (arm("stock a", "FFFF"), arm("fork a", "FFFF"), arm("fork b"))
SWITCHED = Part("p", ARMS, (PREFILL, DECODE), switch=True, together=True, flags=())


def order(part: Part) -> list[tuple[str, str, int]]:
    return [(one.stage.kind, one.arm.name, one.round) for one in visits(part)]


def test_servers_that_are_up_together_let_all_arms_take_turns():
    assert order(SWITCHED) == [
        ("prefill", "stock a", 0),
        ("prefill", "fork a", 0),
        ("prefill", "fork b", 0),
        ("prefill", "fork b", 1),
        ("prefill", "fork a", 1),
        ("prefill", "stock a", 1),
        ("decode", "stock a", 0),
        ("decode", "fork a", 0),
        ("decode", "fork b", 0),
    ]


def test_one_server_at_a_time_is_started_once_and_its_arms_take_turns():
    part = dataclasses.replace(SWITCHED, together=False)
    groups = [one.group for one in visits(part)]
    assert groups == sorted(groups)
    assert order(part)[3:7] == [
        ("prefill", "fork a", 0),
        ("prefill", "fork b", 0),
        ("prefill", "fork b", 1),
        ("prefill", "fork a", 1),
    ]


def test_every_arm_is_measured_as_often_in_either_way():
    for switch in (True, False):
        for together in (True, False):
            part = dataclasses.replace(SWITCHED, switch=switch, together=together)
            assert sorted(order(part)) == sorted(order(SWITCHED))


def test_arms_share_a_server_only_if_it_is_switched():
    assert [[a.name for a in group] for group in SWITCHED.groups] == [
        ["stock a"],
        ["fork a", "fork b"],
    ]
    assert len(dataclasses.replace(SWITCHED, switch=False).groups) == 3


def test_an_arm_with_a_flag_of_its_own_has_a_server_of_its_own():
    own = dataclasses.replace(ARMS[2], name="fork c", flags=("--x",))
    part = dataclasses.replace(SWITCHED, arms=(*ARMS, own))
    names = [[one.name for one in group] for group in part.groups]
    assert names == [["stock a"], ["fork a", "fork b"], ["fork c"]]


def test_what_is_in_the_journal_is_not_measured_again():
    whole = [key for one in visits(SWITCHED) for key in one.keys]
    assert len(whole) == 2 * 3 + 2 * 3
    assert open_visits(SWITCHED, whole) == []
    missing = ("decode 2048 x4", "fork a", 0)
    (left,) = open_visits(SWITCHED, [key for key in whole if key != missing])
    assert (left.arm.name, left.stage) == ("fork a", DECODE)
