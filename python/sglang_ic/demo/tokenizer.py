"""A byte-level tokenizer made from nothing: a prompt has as many tokens as its text has bytes.

There are no merges and no normalisation, so every string comes back unchanged; and since ids below
256 are the byte values, any byte string can be sent as its list of ids.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from sglang_ic.demo.vocabulary import BOS, EOS, NUM_BYTES, PAD, SPECIALS


def byte_symbols() -> list[str]:
    """The printable stand-in that byte-level BPE uses for each byte, indexed by byte value.

    Printable Latin-1 stands for itself; the other bytes take the code points from 256 on, in order.
    """
    as_is = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = iter(range(NUM_BYTES, 2 * NUM_BYTES))
    symbols = [chr(b if b in as_is else next(substitutes)) for b in range(NUM_BYTES)]
    assert sorted(symbols) == sorted(pre_tokenizers.ByteLevel.alphabet()), "alphabet has changed"
    return symbols


def build_tokenizer() -> Tokenizer:
    vocab = {symbol: byte for byte, symbol in enumerate(byte_symbols())}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[]))
    # use_regex=False: splitting into words would change nothing without merges, and costs time.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIALS])
    return tokenizer


def write_tokenizer(directory: Path, *, max_length: int) -> None:
    """Write the tokenizer, its settings and the chat template; `max_length` is in tokens."""
    build_tokenizer().save(str(directory / "tokenizer.json"))
    write_settings(directory, max_length=max_length)


def write_settings(directory: Path, *, max_length: int) -> None:
    """Write what lies beside a tokenizer.json: its settings and the chat template."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    template = Path(__file__).with_name("chat_template.jinja").read_text()
    (directory / "chat_template.jinja").write_text(template)
