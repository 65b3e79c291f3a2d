"""The demo model appears once, whole, and is replaced when it is damaged."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sglang_ic.demo import default_pattern_file, make_model
from sglang_ic.demo.make_model import FINGERPRINT, SHAPE, ensure_demo_model, is_whole, main
from sglang_ic.demo.shape import FILES


@pytest.fixture
def quick(monkeypatch):
    """Count the makings, and make a file set that takes no time instead of the real one."""
    makings = []

    def write(directory, shape, *, seed):
        makings.append(directory)
        directory.mkdir()
        for name in FILES:
            (directory / name).write_text(name)

    monkeypatch.setattr("sglang_ic.demo.checkpoint.write", write)
    return makings


def test_second_call_makes_nothing(tmp_path, quick):
    assert ensure_demo_model(tmp_path / "m") == tmp_path / "m"
    assert ensure_demo_model(tmp_path / "m") == tmp_path / "m"
    assert len(quick) == 1


def test_default_place_is_the_cache_folder(tmp_path, quick, monkeypatch):
    monkeypatch.setenv("SGLANG_IC_CACHE", str(tmp_path))
    assert ensure_demo_model() == tmp_path / "demo-model"
    monkeypatch.delenv("SGLANG_IC_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert make_model.default_directory() == tmp_path / ".cache" / "sglang_ic" / "demo-model"


def _truncate(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


damages = {
    "truncated weights": _truncate,
    "missing file": lambda d: (d / "tokenizer.json").unlink(),
    "edited config": lambda d: (d / "config.json").write_text("{}"),
    "no fingerprint": lambda d: (d / FINGERPRINT).unlink(),
    "fingerprint is not JSON": lambda d: (d / FINGERPRINT).write_bytes(b"\xff{"),
    "fingerprint of nothing": lambda d: (d / FINGERPRINT).write_text("{}"),
    "empty folder": lambda d: [path.unlink() for path in d.iterdir()],
}


@pytest.mark.parametrize("damage", damages.values(), ids=damages.keys())
def test_damaged_model_is_made_again(tmp_path, quick, damage):
    directory = ensure_demo_model(tmp_path / "m")
    damage(directory)
    assert not is_whole(directory)
    ensure_demo_model(directory)
    assert is_whole(directory) and len(quick) == 2


def test_model_of_another_seed_is_made_again(tmp_path, quick, monkeypatch):
    directory = ensure_demo_model(tmp_path / "m")
    monkeypatch.setattr(make_model, "SEED", 7)
    ensure_demo_model(directory)
    assert len(quick) == 2


def test_folder_with_foreign_files_is_left_alone(tmp_path, quick):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="'thesis.tex'.*name an empty or a new folder"):
        ensure_demo_model(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"] and not quick


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def write(directory, shape, *, seed):
        directory.mkdir()
        (directory / "config.json").write_text("{")
        raise OSError("disk full")

    monkeypatch.setattr("sglang_ic.demo.checkpoint.write", write)
    with pytest.raises(OSError, match="disk full"):
        ensure_demo_model(tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == [".m.lock"]


def test_concurrent_callers_make_it_once(tmp_path, quick):
    with ThreadPoolExecutor(8) as pool:
        places = set(pool.map(ensure_demo_model, [tmp_path / "m"] * 8))
    assert places == {tmp_path / "m"} and len(quick) == 1


def test_command_prints_the_folder(tmp_path, quick, capsys):
    assert main([str(tmp_path / "m")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'm'}\n"


def test_command_refuses_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "file")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "name a folder" in captured.err and not captured.out


def test_same_seed_gives_the_same_bytes(tmp_path, demo_model):
    again = ensure_demo_model(tmp_path / "again")
    for name in FILES:
        assert (again / name).read_bytes() == (demo_model / name).read_bytes(), name


def test_weights_stay_small(demo_model):
    assert sum((demo_model / name).stat().st_size for name in FILES) < 80e6


def test_whole_model_is_found_without_torch(demo_model):
    code = (
        "import sys; from sglang_ic.demo.make_model import main; "
        f"main([{str(demo_model)!r}]); assert 'torch' not in sys.modules"
    )
    source = str(Path(make_model.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": source})


def test_default_pattern_fits_the_model():
    content = json.loads(default_pattern_file().read_text())
    pattern = content["pattern"]
    assert content["num_layers"] == SHAPE.num_layers == len(pattern)
    assert content["patterns"] == {str(pattern.count("F")): pattern}
    assert set(pattern) == {"F", "S"} and pattern[0] == "F"
    gaps = [len(run) for run in pattern.split("F")[1:]]
    assert len(set(gaps)) > 1, "a uniform pattern would hide mix-ups with index_topk_freq"
