"""The role of every layer as one immutable value.

`LayerPattern` answers who runs an indexer and whose top-k a layer uses. Layer l is owned by the
nearest layer at or below it that runs one, Full or candidate. It is pure Python: no torch, no
sglang, so that tools and tests can use it anywhere. The rules are in pattern_text.py; names of
presets and files are in pattern_file.py; who may write C is in candidates/switch.py.
"""

from dataclasses import dataclass, field
from functools import cached_property

from sglang_ic.candidates.switch import require_switch
from sglang_ic.pattern_file import file_text, is_file_reference, preset_text
from sglang_ic.pattern_text import (
    PatternError,
    check_count,
    check_text,
    freq_text,
    parse_freq,
    show,
)

__all__ = ["LayerPattern", "PatternError"]


@dataclass(frozen=True)
class LayerPattern:
    """F/S/C text of a model, and the words it was made from (which do not count for equality)."""

    text: str  # [num_layers] letters "F", "S" or "C", layer 0 is "F"
    source: str = field(default="text", compare=False)

    def __post_init__(self) -> None:
        check_text(self.text, len(self.text) if isinstance(self.text, str) else 0)

    @classmethod
    def parse(cls, text: str, num_layers: int) -> "LayerPattern":
        """Read what a user may write for a pattern.

        Args:
            text: F/S text, `full`, `freq:N[,offset:K]`, `preset:NAME`, or `FILE.json[@FULL_COUNT]`.
            num_layers: decoder layers of the model, without MTP layers.
        Raises:
            PatternError: the text is none of these, not for `num_layers` layers, or has candidate
                layers while the environment does not allow them.
        """
        parsed = cls._parse(text, num_layers)
        require_switch(parsed.text)
        return parsed

    @classmethod
    def _parse(cls, text: str, num_layers: int) -> "LayerPattern":
        assert num_layers >= 1, num_layers
        if text == "full":
            return cls.full(num_layers)
        if isinstance(text, str) and text.startswith("freq:"):
            return cls(parse_freq(text, num_layers), text)
        if isinstance(text, str) and text.startswith("preset:"):
            return cls(preset_text(text, num_layers), text)
        if isinstance(text, str) and is_file_reference(text):
            return cls(file_text(text, num_layers), f"file:{text}")
        return cls(check_text(text, num_layers), "text")

    @classmethod
    def full(cls, num_layers: int) -> "LayerPattern":
        """Every layer runs its own indexer: plain DSA."""
        return cls("F" * num_layers, "full")

    @classmethod
    def from_indexer_types(cls, types: object, num_layers: int) -> "LayerPattern":
        """From the `indexer_types` key: one of "full" and "shared" per layer."""
        if not isinstance(types, (list, tuple)):
            raise PatternError(
                f"indexer_types {show(types)} is a {type(types).__name__}: "
                'give a list with "full" or "shared" for each layer'
            )
        for layer, kind in enumerate(types):
            if kind not in ("full", "shared"):
                raise PatternError(
                    f'indexer_types has {show(kind)} at layer {layer}: use only "full" and "shared"'
                )
        if len(types) != num_layers:
            raise PatternError(
                f"indexer_types {show(types)} has {len(types)} entries but the model has "
                f"{num_layers} layers: give one per layer"
            )
        if types[0] == "shared":
            raise PatternError(
                f'indexer_types {show(types)} starts with "shared": '
                'layer 0 has no layer below to reuse, make it "full"'
            )
        return cls("".join("F" if kind == "full" else "S" for kind in types), "indexer_types")

    @classmethod
    def from_cli_factor(cls, factor: object, num_layers: int) -> "LayerPattern":
        """From the `cli_factor` key: Full iff layer % factor == 0."""
        return cls(freq_text(check_count(factor, "cli_factor"), 1, num_layers), "cli_factor")

    @classmethod
    def from_index_topk_pattern(cls, pattern: object, num_layers: int) -> "LayerPattern":
        """From the `index_topk_pattern` key: F/S text, nothing else."""
        text = check_text(pattern, num_layers, "index_topk_pattern")
        if "C" in text:
            raise PatternError(
                f"index_topk_pattern {show(text)} has C (candidate) layers, which are Full to "
                "SGLang: give the pattern with --index-cache-pattern"
            )
        return cls(text, "index_topk_pattern")

    @classmethod
    def from_index_topk_freq(cls, freq: object, offset: object, num_layers: int) -> "LayerPattern":
        """From `index_topk_freq` and `index_skip_topk_offset` (None: upstream's default)."""
        freq = check_count(freq, "index_topk_freq")
        if offset is not None:
            offset = check_count(offset, "index_skip_topk_offset")
        source = f"freq:{freq}" if offset is None else f"freq:{freq},offset:{offset}"
        return cls(freq_text(freq, offset, num_layers), source)

    @property
    def num_layers(self) -> int:
        return len(self.text)

    @property
    def num_full(self) -> int:
        return self.text.count("F")

    @property
    def num_shared(self) -> int:
        return self.text.count("S")

    @property
    def num_candidate(self) -> int:
        return self.text.count("C")

    @property
    def full_layers(self) -> tuple[int, ...]:
        return tuple(layer for layer, letter in enumerate(self.text) if letter == "F")

    @property
    def indexer_layers(self) -> tuple[int, ...]:
        """Layers that run an indexer: Full and candidate ones."""
        return tuple(layer for layer, letter in enumerate(self.text) if letter != "S")

    @property
    def indexer_types(self) -> list[str]:
        """The pattern in upstream's words: [num_layers] of "full" or "shared".

        A candidate layer is "full" there: it has an indexer and index-K.
        """
        return ["shared" if letter == "S" else "full" for letter in self.text]

    @cached_property
    def owners(self) -> tuple[int, ...]:
        """[num_layers] layer whose top-k each layer uses; one that runs an indexer owns itself."""
        owners: list[int] = []
        for layer, letter in enumerate(self.text):
            owners.append(owners[-1] if letter == "S" else layer)
        return tuple(owners)

    def is_full(self, layer: int) -> bool:
        """Whether `layer` runs its indexer over all keys; IndexError outside 0..num_layers-1."""
        self._check_layer(layer)
        return self.text[layer] == "F"

    def is_candidate(self, layer: int) -> bool:
        """Whether `layer` runs its indexer over candidate pages; IndexError outside the layers."""
        self._check_layer(layer)
        return self.text[layer] == "C"

    def runs_indexer(self, layer: int) -> bool:
        """Whether `layer` is Full or candidate; IndexError outside 0..num_layers-1."""
        self._check_layer(layer)
        return self.text[layer] != "S"

    def owner_of(self, layer: int) -> int:
        """Nearest layer at or below `layer` that runs an indexer; IndexError outside the layers."""
        self._check_layer(layer)
        return self.owners[layer]

    def _check_layer(self, layer: int) -> None:
        # A negative index would wrap around to the last layers and answer for the wrong one.
        if not 0 <= layer < self.num_layers:
            raise IndexError(f"layer {layer} is outside 0..{self.num_layers - 1}")

    def __str__(self) -> str:
        return self.text
