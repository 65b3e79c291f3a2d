"""The report: what it says, and what it says of what was not measured."""

import json

import pytest
from search_report import __main__ as command
from search_report import default_pattern, results


def test_everything_reaches_the_page(folder, tmp_path, capsys):
    assert command.main([str(folder), str(tmp_path / "out" / "search")]) == 0
    page = (tmp_path / "out" / "search.md").read_text()
    assert "Not measured" not in page
    assert "0.00250 +/- 0.00750" in page  # the near equal's difference
    assert "1/10.0" in page
    assert "It beats 2 of 3 in dNLL" in page
    assert "27 candidates" in page
    document = json.loads((tmp_path / "out" / "search.json").read_text())
    assert document["fidelity"]["rows"][0]["share"] == "1/2"
    assert (tmp_path / "out" / "search.png").read_bytes().startswith(b"\x89PNG")
    # What was not reached is said as loudly as what was.
    printed = capsys.readouterr().out
    assert printed.count("yes |") == 6
    assert "yes (1 of 1)" in printed and "no (404 tokens)" in printed


def test_missing_steps_are_named_as_not_measured(folder, tmp_path):
    for name in ("losses-1/losses.json", "losses-2/losses.json", "test/results.json", "speed.json"):
        (folder / name).unlink()
    assert command.main([str(folder), str(tmp_path / "search")]) == 0
    page = (tmp_path / "search.md").read_text()
    assert page.count("Not measured.") == 4
    assert "Spearman" in page


def test_a_search_that_was_stopped_is_refused(folder, capsys):
    path = folder / "fast-1" / "pattern.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"complete": False}))
    with pytest.raises(SystemExit) as stopped:
        command.main([str(folder), str(folder / "search")])
    assert stopped.value.code == 2
    assert "--resume" in capsys.readouterr().err
    assert not (folder / "search.md").exists()


@pytest.mark.parametrize("key", ["patterns", "losses"])
def test_losses_that_do_not_belong_together_are_refused(folder, key):
    first, second = (folder / f"losses-{number}" / "losses.json" for number in (1, 2))
    document = json.loads(second.read_text())
    one = json.loads(first.read_text())
    document[key] = one[key][:-1] if key == "patterns" else one[key]
    second.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="same patterns, each of other calibration sets"):
        results.read(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no results"):
        results.read(tmp_path)


def test_a_search_becomes_a_pattern_file(folder):
    search = json.loads((folder / "fast-2" / "pattern.json").read_text())
    found = default_pattern.content(search, 4)
    assert found["pattern"] == "FFFFSSSS" and set(found["patterns"]) == {"8", "4", "2", "1"}
    assert found["data"]["source"] == "b"
    with pytest.raises(ValueError, match="give one of 8, 4, 2, 1"):
        default_pattern.content(search, 5)
