"""Read a plan from its TOML file; what cannot be measured is refused before a server is started."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from sglang_ic.demo import bundled_model
from sglang_ic.latency.plan import ENGINES, Arm, Part, Plan, PlanError, Stage
from sglang_ic.pattern import LayerPattern, PatternError

WEIGHTS = ("dummy", "checkpoint")
# Kind of a stage -> its keys beside `kind`, all needed.
STAGE_KEYS = {
    "prefill": ("context", "rounds"),
    "decode": ("context", "rounds", "batch_sizes", "new_tokens"),
    "profile": ("context", "rounds", "tail_tokens", "new_tokens"),
}
MIN_NEW_TOKENS = 16  # below, the first tokens are most of what is timed


def read(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        PlanError: anything in it that is missing, unknown or cannot be measured.
    """
    try:
        return parse(tomllib.loads(path.read_text()), path.parent)
    except OSError as error:
        raise PlanError(f"{path} cannot be read ({error.strerror}); give a plan file") from error
    except (tomllib.TOMLDecodeError, PlanError, PatternError) as error:
        raise PlanError(f"{path}: {error}") from error


def parse(data: dict[str, Any], folder: Path) -> Plan:
    """A plan from the content of its file, which lies in `folder`.

    Raises:
        PlanError, PatternError: see `read`.
    """
    _check_keys(data, ("title", "model", "weights", "flags", "arms", "parts"), "the plan")
    if data["weights"] not in WEIGHTS:
        raise PlanError(f"weights = {data['weights']!r}: use one of {', '.join(WEIGHTS)}")
    model = bundled_model() if data["model"] == "bundled" else folder / data["model"]
    if not (model / "config.json").is_file():
        raise PlanError(
            f"model = {data['model']!r}: {model} holds no config.json; "
            'give a folder beside the plan, or "bundled"'
        )
    config = json.loads((model / "config.json").read_text())
    arms = {
        name: _arm(name, value, config["num_hidden_layers"]) for name, value in data["arms"].items()
    }
    flags = tuple(data["flags"])
    parts = tuple(_part(name, value, arms, flags) for name, value in data["parts"].items())
    return Plan(
        title=data["title"],
        model=model,
        weights=data["weights"],
        num_layers=config["num_hidden_layers"],
        vocab_size=config["vocab_size"],
        parts=parts,
    )


def _arm(name: str, value: dict[str, Any], num_layers: int) -> Arm:
    what = f"arm {name!r}"
    _check_keys(value, ("engine", "pattern"), what, optional=("environment", "flags"))
    if value["engine"] not in ENGINES:
        raise PlanError(
            f"arm {name!r} has engine {value['engine']!r}: use one of {', '.join(ENGINES)}"
        )
    variables, flags = value.get("environment", {}), value.get("flags", [])
    if not isinstance(variables, dict) or not all(isinstance(x, str) for x in variables.values()):
        raise PlanError(f"{what} has environment {variables!r}: give a table of strings")
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        raise PlanError(f"{what} has flags {flags!r}: give a list of strings")
    pattern = LayerPattern.parse(value["pattern"], num_layers)
    if value["engine"] == "stock" and pattern.num_candidate:
        raise PlanError(
            f"{what} has pattern {pattern}: stock SGLang has no C (candidate) layers and "
            "would run them as Full; use F and S, or engine fork"
        )
    return Arm(
        name=name,
        engine=value["engine"],
        pattern=pattern,
        environment=tuple(variables.items()),
        flags=tuple(flags),
    )


def _part(name: str, value: dict[str, Any], arms: dict[str, Arm], flags: tuple[str, ...]) -> Part:
    what = f"part {name!r}"
    _check_keys(value, ("arms", "stages", "switch", "together", "flags"), what)
    unknown = [arm for arm in value["arms"] if arm not in arms]
    if unknown or not value["arms"]:
        raise PlanError(f"{what} has arms {value['arms']}: use some of {', '.join(arms)}")
    if len(set(value["arms"])) != len(value["arms"]):
        raise PlanError(f"{what} names an arm twice: {value['arms']}")
    for key in ("switch", "together"):
        if not isinstance(value[key], bool):
            raise PlanError(f"{what} has {key} = {value[key]!r}: give true or false")
    return Part(
        name=name,
        arms=tuple(arms[arm] for arm in value["arms"]),
        stages=tuple(_stage(stage, what) for stage in value["stages"]),
        switch=value["switch"],
        together=value["together"],
        flags=flags + tuple(value["flags"]),
    )


def _stage(value: dict[str, Any], part: str) -> Stage:
    kind = value.get("kind")
    if kind not in STAGE_KEYS:
        raise PlanError(f"{part} has a stage of kind {kind!r}: use {', '.join(STAGE_KEYS)}")
    what = f"{part}, stage {kind!r}"
    _check_keys(value, ("kind", *STAGE_KEYS[kind]), what)
    sizes = tuple(value.get("batch_sizes", ()))
    numbers = {key: value[key] for key in STAGE_KEYS[kind] if key != "batch_sizes"}
    for key, number in [*numbers.items(), *(("batch_sizes", size) for size in sizes)]:
        if not isinstance(number, int) or number < 1:
            raise PlanError(f"{what} has {key} {number!r}: give integers of 1 or more")
    if kind == "decode" and not sizes:
        raise PlanError(f"{what} has no batch_sizes: give at least one")
    if value.get("new_tokens", MIN_NEW_TOKENS) < MIN_NEW_TOKENS:
        raise PlanError(
            f"{what} has new_tokens {value['new_tokens']}: give {MIN_NEW_TOKENS} or more"
        )
    if value.get("tail_tokens", 0) >= value["context"]:
        raise PlanError(
            f"{what} has tail_tokens {value['tail_tokens']} of a context of {value['context']}: "
            "the tail must be shorter"
        )
    return Stage(kind=kind, batch_sizes=sizes, **numbers)


def _check_keys(
    value: dict[str, Any], needed: tuple[str, ...], what: str, optional: tuple[str, ...] = ()
) -> None:
    unknown = [key for key in value if key not in (*needed, *optional)]
    missing = [key for key in needed if key not in value]
    if unknown or missing:
        problem = f"does not know {unknown[0]!r}" if unknown else f"lacks {missing[0]!r}"
        can = f", and can have {', '.join(optional)}" if optional else ""
        raise PlanError(f"{what} {problem}; it has {', '.join(needed)}{can}")
