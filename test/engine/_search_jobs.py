"""Jobs of `_driver.py` for the layer search: passes by hand on a real model runner."""

import os
import sys
from contextlib import ExitStack
from importlib import import_module
from types import SimpleNamespace
from unittest.mock import patch

import torch
from _parity_jobs import build, prompt

from sglang_ic.pattern import LayerPattern


def passes_from_any_layer(
    model: str, override: dict, length: int, bases: list[str], chunk_size: int
) -> dict:
    """Every conversion of every base pattern, whole and from the converted layer.

    Returns:
        `whole`, `resumed`: losses by (base, layer, whether in chunks); `begun`: layers that the
        resumed passes began with, likewise; `engine`: by base the loss from the engine's own
        forward under that pattern, if the build allows; `by_hand`: the same from our pass, in
        one piece; `topk`, `recorded`: selections of our pass and what SGLang's capturer saw;
        `free_tokens`, `all_tokens`: room in the pool after our passes, and in an empty one.
    """
    from sglang_ic.search.passes import LayerPasses
    from sglang_ic.search.states import StateStore

    torch.compiler.set_stance("force_eager")
    runner = build(model, override)
    model_runner = runner.model_runner
    ids = prompt(length, seed=1)
    targets = torch.tensor(ids[1:])[:, None]
    roles = model_runner.model.model.index_cache_roles
    found = {"whole": {}, "resumed": {}, "begun": {}, "engine": {}, "by_hand": {}}
    for chunked in (False, True):
        passes = LayerPasses(model_runner, chunk_size if chunked else length)
        for base in bases:
            states = StateStore(range(1, len(base)), 1)
            states.rebase(base)
            outcome = passes.run(ids, LayerPattern(base), keep=states.make_room(0, base))
            states.record(0, base, outcome.entries)
            if not chunked:
                found["by_hand"][base] = outcome.nll
                if roles.build_all:
                    runner.clear()
                    roles.set_pattern(roles.parse(base))
                    logprobs = runner.prefill(ids)[:-1].double().log_softmax(-1)
                    found["engine"][base] = float(-logprobs.gather(1, targets).sum())
            for layer in (x for x in range(1, len(base)) if base[x] == "F"):
                converted = LayerPattern(f"{base[:layer]}S{base[layer + 1 :]}")
                start, entries = states.resume(0, converted.text)
                key = (base, layer, chunked)
                found["begun"][key] = start
                found["resumed"][key] = passes.run(ids, converted, start, entries).nll
                found["whole"][key] = passes.run(ids, converted).nll
    rows = [0, 7, length // 2, length - 1]
    found["topk"] = passes.run(ids, LayerPattern(bases[0]), watch=rows).topk
    found["free_tokens"] = model_runner.token_to_kv_pool_allocator.available_size()
    found["all_tokens"] = model_runner.max_total_num_tokens
    if roles.build_all:
        roles.set_pattern(roles.parse(bases[0]))
        with runner.record_topk() as records:
            runner.prefill(ids)
        found["recorded"] = torch.stack([records.layer(x)[rows] for x in range(len(bases[0]))])
    return found


def worker_losses(model: str, override: dict, lengths: list[int], patterns: list[str]) -> dict:
    """Losses of the scheduler's worker with all, some and no states kept, in the same order.

    Returns:
        `losses`: by kept layers, a list over patterns and sequences; `layer_tokens`: likewise;
        `refused`: what it says of a sequence without room.
    """
    from sglang_ic.search.worker import Worker

    torch.compiler.set_stance("force_eager")
    model_runner = build(model, override).model_runner
    sequences = [prompt(length, seed=length) for length in lengths]
    wanted = list(range(1, len(patterns[0])))
    found = {"losses": {}, "layer_tokens": {}}
    whole = Worker(model_runner, sequences, wanted, 1 << 40, 0).layout
    one_layer = whole.bytes_per_token * sum(lengths)
    for limit in (1 << 40, 3 * one_layer, 0):
        worker = Worker(model_runner, sequences, wanted, limit, 0)
        answers = []
        for number, pattern in enumerate(patterns):
            if number % 3 == 0:
                worker.states.rebase(pattern)
            answers += [worker.loss(LayerPattern(pattern), i) for i in range(len(sequences))]
        kept = len(worker.layout.layers)
        found["losses"][kept] = [loss for loss, _ in answers]
        found["layer_tokens"][kept] = sum(layer_tokens for _, layer_tokens in answers)
    try:
        Worker(model_runner, [prompt(20000, seed=0)], wanted, 0, 0)
    except ValueError as error:
        found["refused"] = str(error)
    return found


class SchedulerHere:
    """In place of `InProcess`: the scheduler's methods on a model runner of this process."""

    def __init__(self, model_runner, stop_after: int | None = None) -> None:
        """Answer calls; with `stop_after`, that many losses, and then as Ctrl-C does."""
        worker = SimpleNamespace(model_runner=model_runner)
        self.scheduler = SimpleNamespace(
            tp_worker=worker, is_fully_idle=lambda: True, flush_cache=lambda: True
        )
        self.losses_left = stop_after

    def call(self, method: str, **kwargs) -> None:
        from sglang_ic.search import worker

        if method.endswith("_loss") and self.losses_left is not None:
            if self.losses_left == 0:
                raise KeyboardInterrupt
            self.losses_left -= 1
        getattr(worker, method)(self.scheduler, **kwargs)

    def close(self) -> None:
        pass


def report_steps(
    model: str, folder: str, path: str, override: dict, steps: list[dict]
) -> list[int]:
    """Command lines of the search's tools, one after the other, on one model.

    Args:
        folder: where they run.
        path: has the package search_report.
        steps: `module`, `argv`, and `stop_after` losses or None.
    Returns:
        The exit code of each.
    """
    torch.compiler.set_stance("force_eager")
    os.chdir(folder)
    sys.path.insert(0, path)
    runner = build(model, override).model_runner
    codes = []
    for step in steps:
        engine = SchedulerHere(runner, step["stop_after"])
        with ExitStack() as stack:
            for name in ("sglang_ic.search.run", "sglang_ic.search.losses", "search_report.speed"):
                module = import_module(name)
                stack.enter_context(patch.object(module, "InProcess", lambda *args: engine))  # noqa: B023
            codes.append(import_module(step["module"]).main(step["argv"]))
    return codes
