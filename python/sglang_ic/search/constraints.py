"""Which layers may be converted, in which order blocks take turns, and when to stop.

Pure: texts of F and S in, layer ids out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from sglang_ic.config import describe_layers
from sglang_ic.pattern import LayerPattern, PatternError
from sglang_ic.pattern_text import show


def pipeline_blocks(num_layers: int, num_blocks: int) -> tuple[range, ...]:
    """Layers of each pipeline stage, as SGLang splits them: the last ones take what is left over.

    Raises:
        PatternError: there are more blocks than layers.
    """
    if not 1 <= num_blocks <= num_layers:
        raise PatternError(
            f"--pipeline-blocks {num_blocks} does not fit {num_layers} layers: "
            f"give 1 to {num_layers}"
        )
    small, left_over = divmod(num_layers, num_blocks)
    blocks, begin = [], 0
    for number in range(num_blocks):
        size = small + (number >= num_blocks - left_over)
        blocks.append(range(begin, begin + size))
        begin += size
    return tuple(blocks)


@dataclass(frozen=True)
class Constraints:
    """What a search starts from, and what it may do to it."""

    start: LayerPattern
    fixed: frozenset[int]  # layers that stay Full; layer 0 among them
    num_full: int  # the goal
    blocks: tuple[range, ...]  # they take turns

    @classmethod
    def make(
        cls, start: LayerPattern, num_full: int, keep_full: Iterable[int], num_blocks: int
    ) -> "Constraints":
        """Check what a user asked for against the start pattern.

        Raises:
            PatternError: they contradict each other, or the goal cannot be reached.
        """
        blocks = pipeline_blocks(start.num_layers, num_blocks)
        keep_full = set(keep_full)
        outside = sorted(layer for layer in keep_full if not 0 <= layer < start.num_layers)
        if outside:
            raise PatternError(
                f"--keep-full names layer {outside[0]}: the model has layers 0 to "
                f"{start.num_layers - 1}"
            )
        fixed = frozenset({0, *keep_full, *(block.start for block in blocks)})
        shared = sorted(layer for layer in fixed if not start.is_full(layer))
        if shared:
            raise PatternError(
                f"{describe_layers(shared)} must stay Full, but {show(start.text)}, which the "
                "search starts from, has them Shared: start from another pattern, or drop "
                "--keep-full or --pipeline-blocks"
            )
        if num_full >= start.num_full:
            raise PatternError(
                f"{num_full} Full layers are asked for, and the search starts with "
                f"{start.num_full}: ask for fewer"
            )
        if num_full < len(fixed):
            raise PatternError(
                f"{num_full} Full layers are asked for, and {describe_layers(fixed)} must stay "
                f"Full: ask for {len(fixed)} or more"
            )
        return cls(start, fixed, num_full, blocks)

    @property
    def num_steps(self) -> int:
        return self.start.num_full - self.num_full

    def candidates(self, text: str) -> tuple[int, ...]:
        """Layers of the pattern `text` that the next step may convert, ascending.

        The blocks take turns, step by step; one with nothing left to convert is passed over.
        """
        turn = self.start.num_full - text.count("F")
        for offset in range(len(self.blocks)):
            block = self.blocks[(turn + offset) % len(self.blocks)]
            found = tuple(x for x in block if text[x] == "F" and x not in self.fixed)
            if found:
                return found
        return ()


def convert(text: str, layer: int) -> str:
    """The pattern with one more Shared layer."""
    assert text[layer] == "F" and layer > 0, (text, layer)
    return text[:layer] + "S" + text[layer + 1 :]


def parse_retention(given: str, num_layers: int) -> int:
    """Full layers of `1/4` or `0.25`, rounded up as the published patterns have it.

    Raises:
        PatternError: not a number between 0 and 1.
    """
    try:
        share = Fraction(given)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise PatternError(
            f"--retention {show(given)} is not between 0 and 1: give something like 1/4 or 0.25"
        )
    return -(-share.numerator * num_layers // share.denominator)


def refuse_candidates(pattern: LayerPattern) -> LayerPattern:
    """The pattern, if its passes can begin at any layer.

    Raises:
        PatternError: it has candidate layers.
    """
    if pattern.num_candidate:
        raise PatternError(
            f"pattern {pattern} has C (candidate) layers: the search converts Full layers to "
            "Shared ones only; use F and S"
        )
    return pattern
