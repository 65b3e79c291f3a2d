"""python -m sglang_ic.demo.train.measure: the table of the model card.

Retrieval accuracy by task and length under selections that a server does not offer, dense and
random among them. An answer is right if every one of its tokens is the model's first choice given
the true text before it; greedy decoding would write exactly those tokens, since it sees the same
text until it errs. To measure a pattern on any checkpoint use `python -m sglang_ic.evaluate`.
"""

import argparse
import json
import random
import sys
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sglang_ic.demo import bundled_model
from sglang_ic.demo.documents import TASKS, Document, documents
from sglang_ic.demo.train.attention import DENSE, FULL, RANDOM, SHARED
from sglang_ic.demo.train.data import BOS_ID, PAD_ID
from sglang_ic.demo.train.export import read_model
from sglang_ic.demo.train.model import Model
from sglang_ic.demo.train.recipe import SHAPE

_NUM_RANDOM = 4
_MAX_TOKENS = 32768  # of a batch


def arms() -> dict[str, str]:
    """Roles by name, one letter per layer or one for all: the rows of the table."""
    layers, rng = SHAPE.num_layers, random.Random(0)
    half = layers // 2
    rows = {"dense attention": DENSE, "all Full": FULL}
    rows["last half random indices"] = FULL * half + RANDOM * half
    for share in (2, 4, 8):
        rows[f"uniform 1/{share}"] = (FULL + SHARED * (share - 1)) * (layers // share)
    for second in sorted(rng.sample(range(1, layers), _NUM_RANDOM)):
        full = (0, second)
        rows[f"random 1/8: {full}"] = "".join(FULL if i in full else SHARED for i in range(layers))
    return rows


def answers_right(top: Tensor, document: Document) -> list[tuple[str, bool]]:
    """`top` [L] int64: first choice after each token of <|bos|> + document."""
    ids = torch.tensor(document.input_ids)
    found = []
    for answer in document.answers:
        span = slice(answer.token_start, answer.token_end)
        found.append((answer.task, bool((top[span] == ids[span]).all())))
    return found


def batch(docs: list[Document]) -> Tensor:
    """<|bos|> + each document, padded to one width: ids [B, L] int64."""
    width = max(len(d.input_ids) for d in docs) + 1
    ids = torch.full((len(docs), width + -width % 8), PAD_ID)
    ids[:, 0] = BOS_ID
    for row, document in zip(ids, docs, strict=True):
        row[1 : 1 + len(document.input_ids)] = torch.tensor(document.input_ids)
    return ids


@torch.no_grad()
def accuracy(model: Model, docs: list[Document], roles: str, *, device: str) -> dict[str, float]:
    """Share of right answers per task and over all answers ("all"), with "all_stderr".

    The standard error is over documents, since the answers within one are not independent.
    """
    model.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    per_document = []
    size = max(1, _MAX_TOKENS // max(len(d.input_ids) for d in docs))
    for start in range(0, len(docs), size):
        some = docs[start : start + size]
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            logits, _ = model(batch(some).to(device), roles=roles)
        for top, document in zip(logits.argmax(-1).cpu(), some, strict=True):
            found = answers_right(top, document)
            for task, good in found:
                right[task].append(good)
            per_document.append(sum(good for _, good in found) / len(found))
    shares = {task: sum(right[task]) / len(right[task]) for task in TASKS}
    spread = torch.tensor(per_document)
    stderr = float(spread.std() / len(spread) ** 0.5) if len(spread) > 1 else float("nan")
    return {**shares, "all": float(spread.mean()), "all_stderr": stderr}


def table(rows: list[dict]) -> str:
    """Markdown, in per cent."""
    lines = [f"| length | selection | {' | '.join(TASKS)} | all |", "|---" * (len(TASKS) + 3) + "|"]
    for row in rows:
        cells = [f"{100 * row[task]:.0f}" for task in TASKS]
        cells.append(f"{100 * row['all']:.1f} ± {100 * row['all_stderr']:.1f}")
        lines.append(f"| {row['length']} | {row['selection']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sglang_ic.demo.train.measure",
        description="Measure retrieval of the bundled model, or of one in training, by selection.",
    )
    parser.add_argument("--model", type=Path, default=bundled_model(), metavar="FOLDER")
    parser.add_argument("--split", default="test")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096, 8192])
    parser.add_argument("--documents", type=int, default=20, help="per length")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    try:
        model = read_model(args.model, SHAPE).to(args.device)
        docs = {
            n: list(documents(args.split, length=n, count=args.documents)) for n in args.lengths
        }
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = []
    for length, (name, roles) in tqdm([(n, arm) for n in docs for arm in arms().items()]):
        shares = accuracy(model, docs[length], roles, device=args.device)
        rows.append({"length": length, "selection": name, "roles": roles, **shares})
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
