"""What is refused before an engine is started: one line, code 2, nothing written."""

import json

import pytest

from sglang_ic.demo.tiny import write_checkpoint
from sglang_ic.search import cli, run


@pytest.fixture(autouse=True)
def no_engine(monkeypatch):
    def refuse(*args):
        raise AssertionError("the engine was started")

    monkeypatch.setattr(run, "InProcess", refuse)


@pytest.fixture
def refused(model, data, tmp_path, capsys):
    """Run with a good model and data unless given; the message."""

    def check(*argv: str) -> str:
        output = tmp_path / "out"
        given = [*argv, "--output", str(output)]
        if "--model-path" not in argv:
            given += ["--model-path", model]
        if "--data" not in argv:
            given += ["--data", data]
        with pytest.raises(SystemExit) as stopped:
            cli.main(given)
        assert stopped.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        assert not output.exists()
        return printed.err

    return check


def test_good_arguments_get_as_far_as_the_engine(model, data, tmp_path):
    argv = ["--model-path", model, "--data", data, "--retention", "1/2"]
    with pytest.raises(AssertionError, match="the engine was started"):
        cli.main([*argv, "--output", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--full-layers", "4"], "ask for fewer"),
        (["--full-layers", "0"], "--full-layers"),
        (["--retention", "2"], "--retention"),
        (["--full-layers", "2", "--retention", "1/2"], "not allowed with"),
        (["--keep-full", "1,9"], "layer 9"),
        (["--keep-full", "one"], "--keep-full"),
        (["--pipeline-blocks", "5"], "--pipeline-blocks 5"),
        (["--pipeline-blocks", "2", "--full-layers", "1"], "layers 0, 2 must stay"),
        (["--start-pattern", "FSF"], "3 letters"),
        (["--control", "greedy"], "--control"),
        (["--method", "quick"], "--method"),
        (["--cache-gib", "-1"], "--cache-gib"),
        (["--cache-gib", "lots"], "--cache-gib"),
        (["--swaps", "many"], "--swaps"),
        (["--bogus"], "--bogus"),
        (["--context-lengths", "32"], "8 x index_topk"),
        (["--data", "/no/such/file.jsonl"], "cannot be read"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(refused, argv, words):
    assert words in refused(*argv)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no document"),
        ("{not json", "is not JSON"),
        ('{"text": 5}', "text"),
        ('{"text": "too short"}\n' * 4, "8 x index_topk"),
        (json.dumps({"text": "a" * 130}), "one sequence"),
        ("\udcff", "cannot be read"),
    ],
)
def test_bad_data_is_refused_in_one_line(refused, tmp_path, content, words):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert words in refused("--data", str(path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "not a DSA model"),
        ({"architectures": ["LongcatFlashForCausalLM"]}, "not covered"),
        ({"index_topk": None}, "no indexer to share"),
    ],
)
def test_models_that_cannot_be_searched_are_refused(refused, model, changes, words):
    path = f"{model}/config.json"
    with open(path) as file:
        config = json.load(file)
    with open(path, "w") as file:
        json.dump(config | changes, file)
    assert words in refused()


def test_trained_sharing_is_named_and_narrows_the_search(tmp_path, data, capsys):
    model = str(write_checkpoint(tmp_path / "m", index_topk=8, drop_indexer_layers=(2, 3, 5)))
    argv = ["--model-path", model, "--data", data, "--output", str(tmp_path / "out")]
    with pytest.raises(AssertionError, match="the engine was started"):
        cli.main(argv)
    assert "layers 2-3, 5 have no indexer and stay Shared" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*argv, "--start-pattern", "FFFSFSFF", "--full-layers", "2"])
    assert "--start-pattern has layer 2 Full" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*argv, "--keep-full", "3"])
    assert "layer 3 must stay Full" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*argv, "--full-layers", "5"])
    assert "starts with 5: ask for fewer" in capsys.readouterr().err


def test_a_search_in_the_folder_is_not_overwritten(model, data, tmp_path, capsys):
    argv = ["--model-path", model, "--data", data, "--output", str(tmp_path / "out")]
    with pytest.raises(AssertionError, match="the engine was started"):
        cli.main(argv)
    with pytest.raises(AssertionError, match="the engine was started"):
        cli.main(argv)  # nothing was measured yet
    with (tmp_path / "out" / "journal.jsonl").open("a") as journal:
        journal.write('{"pattern": "FFFF", "sequence": 0, "loss": 1.5, "layer_tokens": 4}\n')
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2 and "--resume" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*argv, "--resume", "--method", "exhaustive"])
    assert "method 'fast'" in capsys.readouterr().err
    with pytest.raises(AssertionError, match="the engine was started"):
        cli.main([*argv, "--resume", "--full-layers", "2"])  # a goal that is farther away


def test_help_reads_well(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # what argparse folds its own lines to
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "--index-cache-pattern search/pattern.json@20" in text
    assert max(map(len, text.splitlines())) <= 100, "a line of a terminal"
