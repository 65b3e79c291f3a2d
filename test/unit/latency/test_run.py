"""What a command begins within its time limit, on a clock and servers that are made up."""

from types import SimpleNamespace

import pytest

from sglang_ic.latency import plan_file, run
from sglang_ic.latency.journal import Journal
from sglang_ic.latency.launch import Stock
from sglang_ic.latency.run import Budget, Run

# Two servers, one after the other: at each of two lengths both arms of a server take turns.
PLAN = {
    "title": "t",
    "model": "bundled",
    "weights": "checkpoint",
    "flags": [],
    "arms": {
        "fork full": {"engine": "fork", "pattern": "full"},
        "fork 4": {"engine": "fork", "pattern": "freq:4,offset:1"},
        "own full": {"engine": "fork", "pattern": "full", "environment": {"A": "1"}},
    },
    "parts": {
        "p": {
            "arms": ["fork full", "fork 4", "own full"],
            "stages": [
                {"kind": "prefill", "context": 4096, "rounds": 2},
                {"kind": "prefill", "context": 2048, "rounds": 2},
            ],
            "switch": True,
            "together": False,
            "flags": [],
        }
    },
}
PROMPT_SEC = {("fork full", 4096): 23, ("fork 4", 4096): 13, ("own full", 4096): 20}
SHORT_PROMPT_SEC = 4
WARM_SEC = {4096: 13, 2048: 3}


@pytest.fixture
def clock(monkeypatch):
    """A list whose only entry is the time, in seconds."""
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def machine(clock, monkeypatch, tmp_path):
    """A run of the plan whose first server takes 203 s to start, and the next one 62 s."""
    starts = [203.0, 62.0]
    warmed = set()

    def up(self, number, _say):
        if number not in self._targets:
            self._targets.clear()
            clock[0] += starts.pop(0)
            server = SimpleNamespace(check_alive=lambda: None, stop=lambda: None)
            self._targets[number] = SimpleNamespace(server=server)
        return self._targets[number]

    def measure(_plan, visit, _target):
        context = visit.stage.context
        if (visit.group, context) not in warmed:
            warmed.add((visit.group, context))
            clock[0] += WARM_SEC[context]
        seconds = PROMPT_SEC.get((visit.arm.name, context), SHORT_PROMPT_SEC)
        clock[0] += seconds
        yield {"event": "value", "row": visit.stage.rows[0], "metric": "ttft_sec", "value": seconds}

    monkeypatch.setattr(Run, "_up", up)
    monkeypatch.setattr(run, "measure", measure)
    plan = plan_file.parse(PLAN, tmp_path)
    return Run(plan, plan.part("p"), Journal(tmp_path / "x.jsonl"), Stock(), "a command")


def test_what_is_expected_is_the_shortest_of_its_kind(clock):
    budget = Budget(100)
    assert budget.has_room("start") and budget.has_room("again")
    budget.spent("again", 50)
    budget.spent("again", 30)
    budget.spent("again", 40)
    clock[0] = 69
    assert budget.has_room("again")
    clock[0] = 71
    assert not budget.has_room("again") and budget.has_room("start")
    clock[0] = 100
    assert not budget.has_room("start")
    assert Budget(None).has_room("again")


def test_a_first_start_that_compiled_does_not_end_the_command(machine, clock):
    """288 s for the first stage, 203 of them a start: 217 s of the limit are left, and are used."""
    said = []
    assert machine.measure(Budget(505), said.append) == 0
    # 203 + 13 + 72, 3 + 4 x 4, and on the second server 62 + 13 + 40, 3 + 2 x 4.
    assert clock[0] == 288 + 19 + 115 + 11
    assert len(machine.journal.done("p")) == 12


def test_a_visit_that_cannot_fit_is_left_to_the_next_command(machine, clock):
    left = machine.measure(Budget(302), lambda line: None)
    # At 288 s the second stage is new, at 295 s a repeat in it too, and that took 4 s: 303.
    assert clock[0] == 288 + 3 + 4 + 4
    assert left == 12 - 6 == 12 - len(machine.journal.done("p"))
