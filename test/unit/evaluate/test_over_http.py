"""Servers as arms: who they are, which one is the reference, and a whole run over HTTP."""

import json
import math

import pytest
from _fake_server import serving, sglang

from sglang_ic.evaluate.cli import main
from sglang_ic.evaluate.over_http import EngineError, Server, choose_reference, connect
from sglang_ic.pattern import LayerPattern


def server(name, pattern=None):
    return Server(name, f"http://{name}", pattern and LayerPattern(pattern), 8, "m", "m")


def test_server_of_ours_tells_its_pattern():
    with serving(sglang("m", "FSFS", 8, 0.5)) as url:
        named, unnamed = connect(f"half={url}"), connect(url + "/")
    assert (named.name, unnamed.name) == ("half", "FSFS")
    assert named.pattern.text == "FSFS"
    assert (named.index_topk, named.url) == (8, url)


def test_another_sglang_is_a_pattern_that_is_not_known():
    with serving(sglang("m", None, 8, 0.5)) as url:
        found = connect(url)
    assert (found.pattern, found.index_topk) == (None, None)
    assert found.name == url.removeprefix("http://")


def test_what_is_no_sglang_server_is_refused():
    with serving({"/": "<html>hello</html>"}) as url:
        with pytest.raises(EngineError, match="not as an SGLang server"):
            connect(url)
    with pytest.raises(EngineError, match="no answer"):
        connect(url)  # it is gone
    with pytest.raises(EngineError, match="is no address"):
        connect("127.0.0.1:30000")


def test_reference_is_the_all_full_server_or_the_named_one():
    half, full, quarter = server("half", "FSFS"), server("all", "FFFF"), server("quarter", "FSSS")
    assert choose_reference([half, full, quarter], "full") is full
    assert choose_reference([half, full, quarter], "quarter") is quarter
    assert choose_reference([half], "full") is half
    with pytest.raises(EngineError, match="no servers are that; name one of half, quarter"):
        choose_reference([half, quarter], "full")
    with pytest.raises(EngineError, match="2 servers are that"):
        choose_reference([full, server("also", "FFFF")], "full")
    with pytest.raises(EngineError, match="two servers are called 'half'"):
        choose_reference([half, server("half", "FFFF")], "full")


def test_run_over_two_servers_gives_the_hand_computed_numbers(model, data, tmp_path, capsys):
    out = tmp_path / "out"
    with (
        serving(sglang(model, "FFFF", 8, 0.8)) as full,
        serving(sglang(model, "FSFS", 8, 0.4)) as half,
    ):
        code = main(["--url", f"half={half}", "--url", full, "--data", data, "--output", str(out)])
    assert code == 0
    document = json.loads((out / "results.json").read_text())
    assert document["reference"] == "FFFF"
    assert [arm["name"] for arm in document["arms"]] == ["FFFF", "half"]
    reference, half = document["arms"]
    overall = half["overall"]
    assert overall["nll"] == pytest.approx(-math.log(0.4))
    assert overall["dnll"] == pytest.approx(math.log(0.8) - math.log(0.4))
    assert overall["dnll_se"] == pytest.approx(0, abs=1e-9)
    kl = 0.8 * math.log(0.8 / 0.4) + 0.2 * math.log(0.2 / 0.6)
    for name in ("kl_mean", "kl_median", "kl_p99_9"):
        assert overall[name] == pytest.approx(kl, abs=1e-5)
    assert (overall["same_top1"], overall["num_documents"]) == (0.0, 6)
    by_task = {(row["task"], row["length"]): row for row in half["accuracy"]}
    assert by_task["all", None]["num_answers"] == 12
    assert by_task["single", None]["accuracy"] == 0.0
    assert by_task["single", 108]["difference"] == -1.0
    assert by_task["multi", 162]["num_documents"] == 3
    assert {row["accuracy"] for row in reference["accuracy"]} == {1.0}
    assert document["not_probed"] and document["selections"] is None
    assert half["attention"] is None
    assert len(document["documents"]["half"]) == 6
    shown = capsys.readouterr().out
    assert "half" in shown and "0.6931" in shown and "not measured" in shown
    assert (out / "accuracy.png").stat().st_size > 1000
    assert not (out / "overlap.png").exists()
    assert "| half" in (out / "report.md").read_text()


def test_dense_server_is_a_control_and_data_must_suit_the_others(model, data, tmp_path):
    with (
        serving(sglang(model, "FFFF", 1 << 20, 0.8)) as dense,
        serving(sglang(model, "FFFF", 8, 0.8)) as full,
    ):
        urls = ["--url", f"dense={dense}", "--url", f"full={full}"]
        assert main([*urls, "--data", data, "--output", str(tmp_path / "out")]) == 0


def test_server_that_fails_later_leaves_what_was_measured(model, data, tmp_path, capsys):
    routes = sglang(model, "FFFF", 8, 0.8)
    score, answers = routes["/generate"], iter(range(4))
    routes["/generate"] = lambda body: (
        score(body) if next(answers, None) is not None else {"error": {"message": "out of memory"}}
    )
    with serving(routes) as url, pytest.raises(SystemExit) as ended:
        main(["--url", url, "--data", data, "--output", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "stopped early" in capsys.readouterr().err.strip().splitlines()[-1]
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["interrupted"]
    # Lengths take turns, so both are there.
    assert document["data"]["num_samples"] == {"108": 2, "162": 2}


def test_server_that_refuses_a_request_ends_with_its_words(model, data, tmp_path, capsys):
    routes = sglang(model, "FFFF", 8, 0.8)
    routes["/generate"] = {"error": {"message": "the input is too long"}}
    with serving(routes) as url, pytest.raises(SystemExit) as ended:
        main(["--url", url, "--data", data, "--output", str(tmp_path / "out")])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: --url") and "the input is too long" in error
    assert not (tmp_path / "out" / "results.json").exists()
