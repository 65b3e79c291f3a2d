"""Training on a CPU, in small: losses fall, a killed run continues as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sglang_ic.demo.documents.bpe import VOCAB_SIZE
from sglang_ic.demo.train import cli, curves, recipe
from sglang_ic.demo.train.recipe import Stage
from sglang_ic.demo.train.trainer import CHECKPOINT, LOG, Trainer

STAGES = (
    Stage("dense", "dense", 60, 128, 8, 3e-3, 3e-3),
    Stage("warmup", "warmup", 40, 128, 8, 3e-3, 3e-3, 32),
    Stage("sparse", "sparse", 40, 128, 8, 2e-3, 0.0, 32),
)


def trainer(output, shape, stages=STAGES, seed=0) -> Trainer:
    return Trainer(
        output, shape=shape, vocab_size=VOCAB_SIZE, stages=stages, seed=seed, device="cpu",
        workers=0,
    )  # fmt: skip


def log_of(output: Path) -> list[dict]:
    rows = [json.loads(line) for line in (output / LOG).read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_losses_fall_in_every_stage(tmp_path, shape, monkeypatch):
    monkeypatch.setattr(recipe, "WARMUP_STEPS", 10)
    run = trainer(tmp_path, shape)
    assert run.run()
    rows = {(row["stage"], row["step"]): row for row in log_of(tmp_path)}
    assert rows["dense", 60]["loss"] < rows["dense", 20]["loss"] - 0.3
    assert rows["warmup", 40]["indexer_kl"] < 0.9 * rows["warmup", 20]["indexer_kl"]
    assert rows["sparse", 40]["loss"] < rows["dense", 40]["loss"] - 0.3
    curves.draw(tmp_path / LOG, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_warmup_changes_the_indexers_and_nothing_else(tmp_path, shape):
    run = trainer(tmp_path, shape, STAGES[1:2])
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.run()
    changed = {n for n, v in run.model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed and all(".indexer." in name for name in changed)


def test_a_killed_run_continues_with_the_same_losses(tmp_path, shape):
    """kill -9 after a checkpoint; the log of both parts is the log of a run in one piece."""
    stages = tuple(replace(stage, steps=40) for stage in STAGES)
    trainer(tmp_path / "whole", shape, stages).run()
    code = f"""
import sys, torch
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
torch.set_num_threads(1)
from pathlib import Path
from conftest import SMALL
from dataclasses import replace
from test_trainer import STAGES, trainer
stages = tuple(replace(s, steps=40) for s in STAGES)
run = trainer(Path({str(tmp_path / "killed")!r}), SMALL, stages)
run.run(save_every=0.0)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    log = tmp_path / "killed" / LOG
    deadline = time.monotonic() + 120
    while not (log.exists() and '"warmup", "step": 20' in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    again = trainer(tmp_path / "killed", shape, stages)
    assert again.resume()
    assert again.run()
    # A step between checkpoint and kill is logged twice, with the same numbers.
    rows = {(row["stage"], row["step"]): row for row in log_of(tmp_path / "killed")}
    assert list(rows.values()) == log_of(tmp_path / "whole")


def test_a_time_limit_leaves_a_checkpoint(tmp_path, shape):
    run = trainer(tmp_path, shape)
    assert not run.run(time_limit=0.0)
    again = trainer(tmp_path, shape)
    assert again.resume() and (again.stage, again.step) == (0, 1)


def test_another_recipe_or_seed_is_refused(tmp_path, shape):
    trainer(tmp_path, shape).save()
    with pytest.raises(ValueError, match="is from another recipe or seed"):
        trainer(tmp_path, shape, seed=1).resume()
    with pytest.raises(ValueError, match="name another --output, or delete it"):
        trainer(tmp_path, shape, STAGES[:1]).resume()


def test_nothing_to_resume(tmp_path, shape):
    assert not trainer(tmp_path, shape).resume()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--device", "abacus"], "abacus"),
        (["--device", "cpu", "--seed", "1"], "is from another recipe or seed"),
    ],
)
def test_bad_use_is_one_line_and_exit_code_2(tmp_path, capsys, argv, said):
    (tmp_path / CHECKPOINT).parent.mkdir(exist_ok=True)
    torch.save({"fingerprint": "x"}, tmp_path / CHECKPOINT)
    assert cli.main(["--output", str(tmp_path), *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
