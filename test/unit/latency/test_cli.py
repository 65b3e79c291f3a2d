"""Mistakes are one line and exit code 2, before a server is started."""

import pytest

from sglang_ic.latency import cli

PLAN = """
title = "t"
model = "bundled"
weights = "checkpoint"
flags = []
[arms]
"stock full" = { engine = "stock", pattern = "full" }
[parts.one]
arms = ["stock full"]
stages = [{ kind = "prefill", context = 64, rounds = 1 }]
switch = false
together = false
flags = ["--device", "cpu"]
"""


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return str(path)


@pytest.mark.parametrize(
    "words, problem",
    [
        ([], "give a PLAN and a --part"),
        (["PLAN"], "give a PLAN and a --part"),
        (["PLAN", "--part", "two"], "no part 'two'; accepted: one"),
        (["none.toml", "--part", "one"], "cannot be read"),
        (["PLAN", "--part", "one", "--stock-site", "/nowhere"], "holds no sglang"),
        (["PLAN", "--part", "one", "--stock-python", "/nowhere/python"], "cannot be run"),
        (["--report"], "no measurement yet"),
    ],
)
def test_a_mistake_is_one_line(words, problem, plan, tmp_path, capsys):
    words = [plan if word == "PLAN" else word for word in words]
    assert cli.main([*words, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert problem in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.glob("out*"))
