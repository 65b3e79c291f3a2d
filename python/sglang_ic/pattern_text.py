"""The rules a layer pattern must obey, and the words that are short for one.

A pattern is a text of one letter per decoder layer: `F` (Full, runs its indexer) or `S` (Shared,
reuses the top-k of the nearest layer below that is not Shared). `C` (candidate: a Full layer that
scores a part of the keys) is approximate, and candidates/switch.py says who may write it. Upstream
SGLang checks none of this: a short text, lower-case letters or a list are read as something else
without a word, so every rule here refuses in one line that names the value, what is accepted, and
what to do.
"""

import re

ACCEPTED = (
    "accepted: F/S text with one letter per layer, full, freq:N[,offset:K], preset:NAME, "
    "or a JSON file as FILE.json[@FULL_COUNT]"
)

# max(l - 2 + 1, 0) is upstream's max(l - 1, 0): no offset and offset 2 are the same rule.
DEFAULT_OFFSET = 2


class PatternError(ValueError):
    """A pattern, or what it was asked to run on, that we refuse; the message is one line."""


def show(value: object) -> str:
    """A value as one short line for a message."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:90]}... ({len(text)} characters)"


def check_text(text: object, num_layers: int, what: str = "layer pattern") -> str:
    """Return `text` when it is a pattern for `num_layers` layers.

    Args:
        text: F/S/C text.
        num_layers: decoder layers of the model, without MTP layers.
        what: name of the value in messages.
    Raises:
        PatternError: not a str, empty, whitespace, other letters, first layer not F, or another
            length.
    """
    if not isinstance(text, str):
        raise PatternError(
            f"{what} {show(text)} is a {type(text).__name__}, not a text: "
            "write F and S as one string, such as FSSF"
        )
    if not text:
        raise PatternError(f"{what} {show(text)} is empty: leave it out, or give one; {ACCEPTED}")
    if any(letter.isspace() for letter in text):
        raise PatternError(f"{what} {show(text)} contains whitespace: remove it; {ACCEPTED}")
    if set(text) <= set("FSCfsc") and set(text) & set("fsc"):
        raise PatternError(
            f"{what} {show(text)} has lower-case letters: write F (Full) and S (Shared) in capitals"
        )
    for layer, letter in enumerate(text):
        if letter not in "FSC":
            raise PatternError(
                f"{what} {show(text)} has {show(letter)} at position {layer}: "
                f"use only F (Full), S (Shared) and C (candidate, approximate); {ACCEPTED}"
            )
    if text[0] != "F":
        raise PatternError(
            f"{what} {show(text)} starts with {text[0]}: layer 0 has no layer below to reuse, "
            "make it F"
        )
    if len(text) != num_layers:
        raise PatternError(
            f"{what} {show(text)} has {len(text)} letters but the model has {num_layers} layers: "
            "give one letter per layer (MTP layers do not count)"
        )
    return text


def check_count(value: object, what: str) -> int:
    """Return `value` when it is an integer of 1 or more (`True` and `4.0` are not).

    Raises:
        PatternError: anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise PatternError(
            f"{what} {show(value)} is a {type(value).__name__}: give an integer of 1 or more"
        )
    if value < 1:
        raise PatternError(f"{what} {show(value)} is below 1: give an integer of 1 or more")
    return value


def parse_count(text: str, what: str, given: str) -> int:
    """Read the decimal number `text`, part of the user's `given`; same rules as `check_count`."""
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise PatternError(
            f"{what} {show(text)} in {show(given)} is not a whole number: "
            f"give an integer of 1 or more; {ACCEPTED}"
        )
    if int(text) < 1:
        raise PatternError(
            f"{what} {show(text)} in {show(given)} is below 1: give an integer of 1 or more"
        )
    return int(text)


def freq_text(freq: int, offset: int | None, num_layers: int) -> str:
    """Upstream's frequency rule: layer l is Full iff max(l - offset + 1, 0) % freq == 0.

    Without an offset freq 4 is `FFSSSF...`; the `FSSSF...` of the IndexCache paper needs offset 1.
    """
    offset = DEFAULT_OFFSET if offset is None else offset
    return "".join("S" if max(layer - offset + 1, 0) % freq else "F" for layer in range(num_layers))


def parse_freq(given: str, num_layers: int) -> str:
    """Expand `freq:N[,offset:K]` to F/S text.

    Raises:
        PatternError: N or K is not an integer of 1 or more, or another option than one `offset`.
    """
    number, *options = given.removeprefix("freq:").split(",")
    freq = parse_count(number, "frequency", given)
    offset = None
    for option in options:
        name, colon, value = option.partition(":")
        if name != "offset" or not colon:
            raise PatternError(
                f"option {show(option)} in {show(given)} is unknown: "
                "the only option of freq is offset, as in freq:4,offset:1"
            )
        if offset is not None:
            raise PatternError(f"{show(given)} sets offset twice: keep one, as in freq:4,offset:1")
        offset = parse_count(value, "offset", given)
    return freq_text(freq, offset, num_layers)
