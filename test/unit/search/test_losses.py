"""Losses of given patterns: what is refused before an engine starts, and what is measured."""

import json

import pytest
from _objectives import Answering

from sglang_ic.search import losses

LENGTH = "64"  # 8 x index_topk of the model


@pytest.fixture
def engines(monkeypatch):
    """Engines that were started, in order."""
    started = []

    def start(*args):
        started.append(Answering())
        return started[-1]

    monkeypatch.setattr(losses, "InProcess", start)
    return started


@pytest.fixture
def argv(model, data, tmp_path):
    given = ["--model-path", model, "--data", data, "--pattern", "FSFS", "--pattern", "FFSS"]
    return [*given, "--context-lengths", LENGTH, "--output", str(tmp_path / "out")]


def test_every_pattern_is_measured_on_every_sequence(engines, argv, tmp_path, data):
    assert losses.main(argv) == 0
    found = json.loads((tmp_path / "out/losses.json").read_text())
    count = len(found["data"][0]["weights"])
    table = found["losses"][data]
    assert list(table) == ["FFFF", "FSFS", "FFSS"]
    assert table["FFSS"] == [10.0 * sequence + 2 for sequence in range(count)]
    assert engines[0].calls[-1] == "close"
    assert found["noise"] == {"repeated": 0.0, "resumed": 0.0}


def test_a_second_run_goes_on_and_needs_to_be_told_so(engines, argv, capsys):
    assert losses.main(argv) == 0
    with pytest.raises(SystemExit):
        losses.main(argv)
    assert "--resume" in capsys.readouterr().err
    assert losses.main([*argv, "--pattern", "FSSS", "--resume"]) == 0
    # The self-check's passes, and those of the new pattern on eight sequences.
    assert engines[-1].calls.count("loss") == 2 * 5 + 8


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--pattern", "FSF"], "FSF"),
        (["--control", "greedy"], "greedy"),
        (["--context-lengths", "16"], "index_topk"),
        (["--data", "DATA"], "given twice"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    engines, argv, more, words, data, tmp_path, capsys
):
    with pytest.raises(SystemExit) as stopped:
        losses.main([*argv, *(data if word == "DATA" else word for word in more)])
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1 and words in printed
    assert not engines and not (tmp_path / "out").exists()
