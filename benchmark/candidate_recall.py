"""What candidate layers miss, on the bundled model on CPU, beside what sglang_ic.evaluate tells.

    SGLANG_USE_CPU_ENGINE=1 PYTHONPATH=python:benchmark:test/engine \\
        python -W ignore benchmark/candidate_recall.py --output out.json

arms    For patterns with C: loss and retrieval, and each candidate layer's selection beside what
        the same layer would have selected over all keys from the same inputs, on every 16th row.
        Also with pages and groups of other sizes than those that are served.
rule    On the selections of an all-Full run: the share of a layer's selection that lies in the
        pages that the layer before it gives, and the share of as many tokens drawn at random.
alone   Retrieval where nothing comes after the question. The rows of a group choose their pages
        together, and in a document that is scored whole the later questions, and the answers, are
        in the group. Here one question is the end of the prompt; beside it, the same question in
        the whole document. Right means: the first token of the answer is on top.

Prefill in process without a scheduler, in chunks as the server has on CPU.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")

import numpy as np
import torch
from _runner import _make_request, make_runner

from sglang_ic import demo
from sglang_ic.candidates import pages
from sglang_ic.candidates.switch import CANDIDATE_PAGES, GROUP_ROWS, LAST_PAGES, PAGE_TOKENS
from sglang_ic.cpu import candidates, indexer
from sglang_ic.cpu.kernels import select_topk
from sglang_ic.evaluate import environment
from sglang_ic.evaluate.suites import DataRequest, gather, tokenizer_encoder

CHUNK, STRIDE = 2048, 16
FULL, ALL_CANDIDATE = "F" * 16, "F" + "C" * 15


@dataclass(frozen=True)
class Arm:
    """A pattern and the sizes of the rule."""

    pattern: str
    num_pages: int  # of a list
    page: int = PAGE_TOKENS
    group: int = GROUP_ROWS

    @property
    def name(self) -> str:
        return f"{self.pattern}, {self.num_pages} pages of {self.page}, groups of {self.group}"

    def use(self, runner) -> None:
        """Switch the model, and the rule, from the next pass on."""
        set_sizes(self.page, self.group)
        os.environ[CANDIDATE_PAGES] = str(self.num_pages)
        roles = runner.model_runner.model.model.index_cache_roles
        roles.set_pattern(roles.parse(self.pattern))


ARMS = [
    Arm(ALL_CANDIDATE, 32),
    Arm("FC" * 8, 32),  # every candidate layer follows a Full one
    Arm(ALL_CANDIDATE, 32, group=64),
    Arm(ALL_CANDIDATE, 512, page=4, group=32),  # index_topk 128 is 2,048 / 16: sizes by 16 as well
]
# (tokens of a page, rows of a group) and tokens in a list, for `rule`.
SIZES = [(64, 512), (64, 64), (16, 128), (4, 512), (4, 32)]
KEYS = [2048, 4096]


def set_sizes(page: int, group: int) -> None:
    for module in (pages, candidates):
        module.PAGE_TOKENS = page
    pages.GROUP_ROWS, pages.LAST_PAGES = group, max(LAST_PAGES, group // page)


class Recall:
    """Stands in for `select_among_candidates`, and compares what it selects."""

    def __init__(self) -> None:
        self.layer = 0
        self.found: dict[int, list[tuple[int, float]]] = {}  # layer -> (position, share)

    def __call__(self, q, weights, keys, first, previous, num_pages, out) -> None:
        candidates.select_among_candidates(q, weights, keys, first, previous, num_pages, out)
        for row in range(pages.num_covered(first, len(q), num_pages), len(q), STRIDE):
            exact = torch.empty(1, out.shape[1], dtype=torch.int32)
            one = slice(row, row + 1)
            select_topk(q[one], weights[one], keys[: first + row + 1], first + row, exact)
            share = torch.isin(exact[0], out[row]).float().mean().item()
            self.found.setdefault(self.layer, []).append((first + row, share))


@contextmanager
def watched(runner) -> Iterator[Recall]:
    """Compare the selections of all candidate layers."""
    watch = Recall()
    handles = [
        layer.self_attn.indexer.register_forward_pre_hook(
            lambda *_, number=number: setattr(watch, "layer", number)
        )
        for number, layer in enumerate(runner.model_runner.model.model.layers)
    ]
    indexer.select_among_candidates = watch
    yield watch
    indexer.select_among_candidates = candidates.select_among_candidates
    for handle in handles:
        handle.remove()


def judged(runner, sample) -> tuple[float, list[bool]]:
    """Loss in nats per token, and whether each answer is right, all its tokens on top."""
    ids = torch.tensor(sample.input_ids)
    logits = runner.prefill(list(sample.input_ids), chunk_size=CHUNK)
    right = logits[:-1].argmax(dim=1) == ids[1:]
    answers = [bool(right[span.begin - 1 : span.end - 1].all()) for span in sample.answers]
    return torch.nn.functional.cross_entropy(logits[:-1], ids[1:]).item(), answers


def measure_arms(runner, samples) -> dict:
    found = {}
    questions = min(len(sample.input_ids) for sample in samples) - 200
    for arm in ARMS:
        arm.use(runner)
        with watched(runner) as watch:
            judgements = [judged(runner, sample) for sample in samples]
        shares = {layer: np.array(rows) for layer, rows in sorted(watch.found.items())}
        found[arm.name] = {
            "nll": [nll for nll, _ in judgements],
            "right": [right for _, right in judgements],
            "rows_per_layer": len(next(iter(shares.values()))),
            "recall": {k: float(rows[:, 1].mean()) for k, rows in shares.items()},
            "recall_p10": {k: float(np.quantile(rows[:, 1], 0.1)) for k, rows in shares.items()},
            "recall_of_questions": {
                k: float(rows[rows[:, 0] >= questions, 1].mean()) for k, rows in shares.items()
            },
        }
        print(arm.name, np.mean(sum(found[arm.name]["right"], [])), flush=True)
    return found


def rule_on_full(runner, samples) -> dict:
    """Share of each layer's selection in the pages of the one before, and the all-Full results."""
    Arm(FULL, 32).use(runner)
    table, chances, judgements = {}, {}, []
    for sample in samples:
        with runner.record_topk() as records:
            judgements.append(judged(runner, sample))
        topk = [records.layer(layer).long() for layer in range(16)]
        seen = torch.arange(1, len(sample.input_ids) + 1).unsqueeze(1)
        drawn = (torch.rand(topk[0].shape) * seen).long()
        for page, group in SIZES:
            set_sizes(page, group)
            for keys in KEYS:
                name = f"{page} x {group}, {keys} keys"
                shares = [_inside(topk[i - 1], topk[i], keys // page) for i in range(1, 16)]
                table.setdefault(name, []).append(shares)
                chances.setdefault(name, []).append(_inside(topk[0], drawn, keys // page))
    return {
        "nll": [nll for nll, _ in judgements],
        "right": [right for _, right in judgements],
        "layers": list(range(1, 16)),
        "by_size": {name: np.mean(rows, axis=0).tolist() for name, rows in table.items()},
        "chance": {name: float(np.mean(rows)) for name, rows in chances.items()},
    }


def _inside(before: torch.Tensor, own: torch.Tensor, num_pages: int) -> float:
    """Share of `own` [T, k] in the pages that `before` gives, chunk by chunk, where P is short."""
    kept, total = 0, 0
    for begin in range(0, len(own), CHUNK):
        rows = slice(begin, min(begin + CHUNK, len(own)))
        num_rows = rows.stop - begin
        covered = pages.num_covered(begin, num_rows, num_pages)
        counts = pages.count_selected(before[rows], begin)
        lists = pages.choose_pages(counts, begin, num_rows, num_pages)
        listed = torch.zeros(counts.shape, dtype=torch.bool).scatter_(1, lists, True)
        group = pages.group_of_rows(begin, num_rows, own.device)[covered:, None]
        page = own[rows][covered:].clamp(min=0) // pages.PAGE_TOKENS
        used = own[rows][covered:] >= 0
        kept += int((listed[group, page] & used).sum())
        total += int(used.sum())
    return kept / total


def answered_alone(runner, samples, newline: int) -> dict:
    arms = [Arm(FULL, 32), Arm(ALL_CANDIDATE, 32)]
    found = {arm.name: {"whole": [], "alone": []} for arm in arms}
    for sample in samples:
        ids, spans = list(sample.input_ids), sample.answers
        starts = [_line_start(ids, span.begin, newline) for span in spans]
        body = ids[: starts[0]]
        prefix = len(body) // GROUP_ROWS * GROUP_ROWS
        for arm in arms:
            arm.use(runner)
            logits = runner.prefill(ids, chunk_size=CHUNK)
            tops = [logits[span.begin - 1] for span in spans]
            prompts = [body + ids[at : span.begin] for at, span in zip(starts, spans, strict=True)]
            for where, rows in (("whole", tops), ("alone", _last_rows(runner, prompts, prefix))):
                for span, row in zip(spans, rows, strict=True):
                    found[arm.name][where].append(int(row.argmax()) == ids[span.begin])
    return found


def _line_start(ids: list[int], at: int, newline: int) -> int:
    return max(i for i in range(at) if ids[i] == newline) + 1


def _last_rows(runner, prompts: list[list[int]], prefix: int) -> Iterator[torch.Tensor]:
    """Logits of each prompt's last row; their common prefix is computed once."""
    runner.clear()
    request = _make_request(0, prompts[0])
    for end in [*range(CHUNK, prefix, CHUNK), prefix]:
        runner._extend([request], [end])
    for prompt in prompts:
        fresh = _make_request(0, prompt)
        request.origin_input_ids = request.full_untruncated_fill_ids = fresh.origin_input_ids
        request.extend_end = prefix  # back to the prefix, at a page's end
        yield runner._extend([request], [len(prompt)])[0][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--documents", type=int, default=3)
    parser.add_argument("--alone-length", type=int, default=4096)
    parser.add_argument("--alone-documents", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()

    import sglang_ic.cpu.plugin
    import sglang_ic.plugin

    sglang_ic.plugin.register()
    sglang_ic.cpu.plugin.register()
    model = str(demo.bundled_model())
    runner = make_runner(model, json_model_override_args='{"index_cache_build": "all"}')
    encode = tokenizer_encoder(model)
    begin = time.perf_counter()
    samples = gather(DataRequest("test", (args.length,), args.documents), 128, None, encode)
    alone = DataRequest("test", (args.alone_length,), args.alone_documents)
    newline = encode("\n")[0][-1]
    found = {
        "schema_version": 1,
        "settings": {key: value for key, value in vars(args).items() if key != "output"},
        "hardware": environment.hardware(),
        "software": environment.versions(),
        "rule": rule_on_full(runner, samples),
        "arms": measure_arms(runner, samples),
        "alone": answered_alone(runner, gather(alone, 128, None, encode), newline),
        "seconds": time.perf_counter() - begin,
    }
    args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
