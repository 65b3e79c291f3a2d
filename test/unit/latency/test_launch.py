"""The command that serves a group of arms, for each engine and each way of serving."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from sglang_ic.hopper import switches
from sglang_ic.latency import in_scheduler, launch
from sglang_ic.latency.plan import Arm, Part, Plan, Stage
from sglang_ic.pattern import LayerPattern

STOCK = Arm("stock 2 Full", "stock", LayerPattern("FSFS"))
FORK = Arm("fork 2 Full", "fork", LayerPattern("FSFS"))
DECODE = Stage("decode", 2048, rounds=1, batch_sizes=(1, 4), new_tokens=32)
PART = Part("p", (STOCK, FORK), (DECODE,), switch=True, together=False, flags=("--tp", "8"))
PLAN = Plan("t", Path("models/m"), "dummy", 4, 1000, (PART,))
SITE = launch.Stock(site="site")


def command(arm: Arm, *, switch: bool, on_cpu: bool = False) -> list[str]:
    part = dataclasses.replace(PART, switch=switch)
    return launch.command(PLAN, part, (arm,), SITE, 31000, on_cpu=on_cpu)


def value(words: list[str], flag: str) -> str:
    assert words.count(flag) == 1
    return words[words.index(flag) + 1]


def test_every_server_gets_model_port_weights_and_the_parts_flags():
    for arm in (STOCK, FORK):
        words = command(arm, switch=False)
        assert words[:5] == [sys.executable, "-W", "ignore", "-m", "sglang_ic.latency.serve"]
        assert words[5] == arm.engine
        assert value(words, "--port") == "31000" and value(words, "--host") == "127.0.0.1"
        assert value(words, "--model-path") == "models/m"
        assert value(words, "--load-format") == "dummy" and value(words, "--tp") == "8"


def test_upstream_gets_the_pattern_in_its_own_words_since_it_ignores_the_frequency():
    types = json.loads(value(command(STOCK, switch=False), "--json-model-override-args"))
    assert types == {"indexer_types": ["full", "shared", "full", "shared"]}
    words = command(FORK, switch=False)
    assert value(words, "--index-cache-pattern") == "FSFS"
    assert "--json-model-override-args" not in words


def test_a_switched_server_has_indexers_everywhere_and_no_graph_of_its_own():
    words = command(STOCK, switch=True)
    assert json.loads(value(words, "--json-model-override-args")) == {"indexer_types": ["full"] * 4}
    assert "--disable-decode-cuda-graph" in words
    words = command(FORK, switch=True)
    assert json.loads(value(words, "--json-model-override-args")) == {"index_cache_build": "all"}
    assert value(words, "--index-cache-pattern") == "full"


def test_what_is_an_arms_own_reaches_its_server_alone():
    own = dataclasses.replace(FORK, environment=(("SGLANG_IC_X", "1"),), flags=("--tp", "4"))
    words = command(own, switch=True)
    assert words[words.index("--tp") :][:4] == ["--tp", "8", "--tp", "4"]  # the last one counts
    found = launch.environment(PART, (own,), SITE, on_cpu=False)
    assert found["SGLANG_IC_X"] == "1"
    assert "SGLANG_IC_X" not in launch.environment(PART, (FORK,), SITE, on_cpu=False)


def test_the_fork_has_upstreams_kernels_but_for_those_that_an_arm_names():
    found = launch.environment(PART, (FORK,), SITE, on_cpu=False)
    assert {found[name] for name in switches.NAMES} == {switches.OFF}
    own = dataclasses.replace(FORK, environment=((switches.PREFILL_TOPK, "ragged"),))
    found = launch.environment(PART, (own,), SITE, on_cpu=False)
    assert found[switches.PREFILL_TOPK] == "ragged"
    assert found[switches.PREFILL_ATTENTION] == switches.OFF
    assert not set(switches.NAMES) & set(launch.environment(PART, (STOCK,), SITE, on_cpu=False))


def test_a_server_of_one_arm_captures_the_batch_sizes_that_are_decoded():
    words = command(FORK, switch=False)
    at = words.index("--cuda-graph-bs-decode")
    assert words[at + 1 : at + 3] == ["1", "4"]
    assert "--disable-decode-cuda-graph" not in words


def test_a_cpu_gets_no_flags_about_graphs_and_those_it_needs():
    words = command(STOCK, switch=True, on_cpu=True)
    assert value(words, "--device") == "cpu"
    assert not [word for word in words if "cuda-graph" in word]


def test_a_switched_server_knows_its_arms_and_then_all_full():
    found = launch.environment(PART, (FORK,), SITE, on_cpu=False)
    assert json.loads(found[in_scheduler.PATTERNS_VARIABLE]) == ["FSFS", "FFFF"]
    assert json.loads(found[in_scheduler.GRAPHS_VARIABLE]) == [1, 4]
    assert "PYTHONPATH" not in found


def test_upstream_in_a_folder_gets_its_own_path_and_no_plugin():
    part = dataclasses.replace(PART, switch=False)
    found = launch.environment(part, (STOCK,), SITE, on_cpu=False)
    assert (
        found["PYTHONPATH"].split(":")[0] == str(Path("site").absolute())
        and found["SGLANG_PLUGINS"] == "none"
    )
    assert found["PYTHONSAFEPATH"] == "1"
    assert in_scheduler.PATTERNS_VARIABLE not in found


def test_a_missing_upstream_is_named(tmp_path):
    with pytest.raises(launch.LaunchError, match="holds no sglang"):
        launch.Stock(site=str(tmp_path)).check()
    with pytest.raises(launch.LaunchError, match="make stock"):
        launch.Stock(python=str(tmp_path / "python")).check()
