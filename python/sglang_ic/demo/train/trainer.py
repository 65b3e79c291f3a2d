"""The training loop: stages in order, checkpoints, curves; stops and resumes at any step.

Same command, same seed, same data: a run that was killed and one that was not see the same batches
and the same random rows, and on a CPU the same losses bit for bit.
"""

import json
import math
import os
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sglang_ic.demo.shape import DsaShape
from sglang_ic.demo.train import recipe
from sglang_ic.demo.train.attention import DENSE, FULL
from sglang_ic.demo.train.data import batches
from sglang_ic.demo.train.losses import language_loss
from sglang_ic.demo.train.model import Model, Moe
from sglang_ic.demo.train.recipe import Stage

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


class Trainer:
    """Everything that a checkpoint holds, and how to move it one step on."""

    def __init__(
        self,
        output: Path,
        *,
        shape: DsaShape,
        vocab_size: int,
        stages: tuple[Stage, ...],
        seed: int,
        device: str,
        workers: int,
    ):
        torch.manual_seed(seed)
        self.output, self.stages, self.seed, self.workers = output, stages, seed, workers
        self.device = torch.device(device)
        self.on_gpu = self.device.type == "cuda"
        self.fingerprint = recipe.fingerprint(shape, stages, seed)
        self.model = Model(shape, vocab_size).to(self.device)
        self.indexers = self.model.indexer_parameters()
        in_indexer = {id(p) for p in self.indexers}
        self.rest = [p for p in self.model.parameters() if id(p) not in in_indexer]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self._matrices(group, True), "weight_decay": recipe.WEIGHT_DECAY}
                for group in (self.rest, self.indexers)
            ]
            + [
                {"params": self._matrices(group, False), "weight_decay": 0.0}
                for group in (self.rest, self.indexers)
            ],
            betas=recipe.BETAS,
            fused=self.on_gpu,
        )
        self.stage, self.step, self.seconds = 0, 0, 0.0

    @staticmethod
    def _matrices(parameters: list, want: bool) -> list:
        return [p for p in parameters if (p.ndim > 1) == want]

    def save(self) -> None:
        """Write the checkpoint so that a kill leaves the old one or the new one."""
        state = {
            "fingerprint": self.fingerprint,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": (self.stage, self.step, self.seconds),
        }
        self.output.mkdir(parents=True, exist_ok=True)
        scratch = self.output / (CHECKPOINT + ".new")
        torch.save(state, scratch)
        os.replace(scratch, self.output / CHECKPOINT)

    def resume(self) -> bool:
        """Continue from the checkpoint in `output`, if there is one.

        Raises:
            ValueError: it was made with another recipe, shape or seed.
        """
        path = self.output / CHECKPOINT
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"{path} is from another recipe or seed ({state['fingerprint']}, not "
                f"{self.fingerprint}); name another --output, or delete it"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stage, self.step, self.seconds = state["position"]
        return True

    def run(self, *, time_limit: float = math.inf, save_every: float = 120.0) -> bool:
        """Train until the last stage ends (True), or about `time_limit` seconds have passed."""
        begin = last_save = time.monotonic()
        spent_before = self.seconds
        while self.stage < len(self.stages):
            stage = self.stages[self.stage]
            todo = batches(
                stage.name, stage.length, stage.batch_size, self.step, stage.steps, self.workers
            )
            bar = tqdm(
                todo,
                desc=stage.name,
                total=stage.steps,
                initial=self.step,
                mininterval=5,
                dynamic_ncols=True,
            )
            for ids, answers in bar:
                metrics = self.train_step(stage, ids, answers)
                self.step += 1
                self.seconds = spent_before + time.monotonic() - begin
                if self.step % 20 == 0 or self.step == stage.steps:
                    bar.set_postfix_str(self._log(stage, metrics))
                now = time.monotonic()
                if now - begin > time_limit:
                    bar.close()
                    self.save()
                    return False
                if now - last_save > save_every:
                    self.save()
                    last_save = now
            self.stage, self.step = self.stage + 1, 0
            self.save()
        return True

    def _log(self, stage: Stage, metrics: dict[str, Tensor]) -> str:
        row = {name: round(float(value), 5) for name, value in metrics.items()}
        place = {"stage": stage.name, "step": self.step, "seconds": round(self.seconds, 1)}
        self.output.mkdir(parents=True, exist_ok=True)
        with (self.output / LOG).open("a") as file:
            file.write(json.dumps({**place, **row}) + "\n")
        return " ".join(f"{name}={value:.3f}" for name, value in row.items())

    def train_step(self, stage: Stage, ids: Tensor, answers: Tensor) -> dict[str, Tensor]:
        """One optimizer step on ids and answers [B, L]; returns its losses as scalars."""
        self._set_lr(stage)
        self.model.train(stage.kind != "warmup")
        for p in self.rest:  # warm-up: nothing below the indexers' own projections has a gradient
            p.requires_grad_(stage.kind != "warmup")
        ids, answers, rows = (value.to(self.device) for value in (ids, answers, self._rows(stage)))
        with torch.autocast("cuda", dtype=torch.bfloat16) if self.on_gpu else nullcontext():
            logits, kl = self.model(
                ids,
                roles=FULL if stage.kind == "sparse" else DENSE,
                rows=None if stage.kind == "dense" else rows,
            )
        metrics = language_loss(logits, ids, answers)
        loss = metrics["loss"] + recipe.ANSWER_WEIGHT * metrics["answer_loss"]
        if kl:
            metrics["indexer_kl"] = torch.stack(kl).mean()
            loss = torch.stack(kl).sum() + (0.0 if stage.kind == "warmup" else loss)
        loss.backward()
        for group in (self.rest, self.indexers):
            if trained := [p for p in group if p.grad is not None]:
                torch.nn.utils.clip_grad_norm_(trained, recipe.MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.model.training:
            for module in self.model.modules():
                if isinstance(module, Moe):
                    module.balance(recipe.BALANCE_RATE)
        return {name: value.detach() for name, value in metrics.items()}

    def _set_lr(self, stage: Stage) -> None:
        lr = stage.lr_at(self.step)
        if self.stage == 0:
            lr *= min(1.0, (self.step + 1) / recipe.WARMUP_STEPS)
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def _rows(self, stage: Stage) -> Tensor:
        """Query rows for the indexers' loss: a function of seed, stage and step alone."""
        text = (self.seed * 1000 + self.stage) * 1_000_000 + self.step
        generator = torch.Generator().manual_seed(text)
        count = min(stage.num_rows, stage.length)
        return torch.randperm(stage.length, generator=generator)[:count].sort().values
