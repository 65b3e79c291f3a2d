"""The bundled model's tokenizer: byte-level BPE, trained on the generator's own lines.

`python -m sglang_ic.demo.documents.bpe FOLDER` writes it. The result is committed with the weights,
which depend on its ids; training it again gives the same file.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

from sglang_ic.demo import bundled_model
from sglang_ic.demo.documents import facts
from sglang_ic.demo.tokenizer import write_settings
from sglang_ic.demo.vocabulary import BOS, EOS, PAD, ROLES

VOCAB_SIZE = 1024
_NUM_LINES = 40_000


def training_lines() -> Iterator[str]:
    """Lines of every kind, as documents have them; part of no split."""
    draw = facts.Draw("tokenizer")
    for index in range(_NUM_LINES):
        if index % 20 == 0:
            draw = facts.Draw(f"tokenizer-{index}")  # a new document: its keys are free again
        fact = facts.MAKERS[facts.TASKS[index % len(facts.TASKS)]](draw)
        yield f"\nRecord train-{index}."
        yield "\n" + facts.filler(draw)
        if fact is not None:
            yield from ("\n" + line for line in fact.lines)
            yield f"\n{fact.question}{fact.answer}."


def train() -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    # Words are split from the space before them on, so a text may be cut before any space or line.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(name, normalized=False) for name in (BOS, EOS, PAD, *ROLES)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_lines(), trainer)
    # A text starts with <|bos|>, as in training; a chat template writes its own.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


@cache
def encoder() -> Callable[[str], list[int]]:
    """Text -> ids with the bundled tokenizer, no specials added. Lines repeat, so it remembers."""
    tokenizer = Tokenizer.from_file(str(bundled_model() / "tokenizer.json"))
    return lru_cache(maxsize=1 << 16)(
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    train().save(str(folder / "tokenizer.json"))
    write_settings(folder, max_length=65536)
    print(json.dumps({"vocab_size": VOCAB_SIZE, "folder": str(folder)}))
