"""Our command-line arguments, beside SGLang's own: pure functions over argv."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sglang_ic import demo
from sglang_ic.server.resolve import DEFAULT_KEY, FLAG_KEY

# Keys by which a user can already have said which layers are Full (upstream's words).
PATTERN_KEYS = ("indexer_types", "cli_factor", "index_topk_pattern", "index_topk_freq")

PATTERN_HELP = """\
which layers run their indexer (F) and which reuse the nearest Full layer's top-k (S): F/S text,
"full", "freq:N[,offset:K]", "preset:NAME", or a pattern.json file (FILE or FILE@COUNT)
(C, a Full layer that scores a part of the keys, is approximate: see sglang_ic/candidates)"""

# What DSA on CPU needs; sglang_ic.cpu says why of each.
CPU_FLAGS: dict[str, str | None] = {
    "--device": "cpu",
    "--attention-backend": "torch_native",
    "--dtype": "float32",
    "--sampling-backend": "pytorch",
    "--max-total-tokens": "65536",
    "--chunked-prefill-size": "2048",
    "--sleep-on-idle": None,  # an idle scheduler would keep one of the few cores busy
}

# Upstream's fused top-k kernels take index_topk 2048 only; the bundled model has 128. Prompts
# within the top-k would go to FlashAttention 3 with expanded heads, whose sizes it lacks (96, 32).
BUNDLED_CUDA_FLAGS: dict[str, str | None] = {"--dsa-topk-backend": "torch"}
BUNDLED_CUDA_ENVIRONMENT = {
    "SGLANG_DSA_FUSE_TOPK": "false",
    "SGLANG_DSA_PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD": "0",
}


def split(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our arguments as a namespace, and the rest for SGLang in its order."""
    return _parser().parse_known_args(argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sglang_ic.launch_server", add_help=False, allow_abbrev=False
    )
    parser.add_argument("--index-cache-pattern", metavar="PATTERN", help=PATTERN_HELP)
    parser.add_argument("-h", "--help", action="store_true", help="show all flags and stop")
    return parser


def print_help() -> None:
    """Our flags, then SGLang's own help, then exit 0."""
    from sglang.srt.server_args import ServerArgs

    print(_parser().format_help())
    print("and every flag of sglang.launch_server:\n")
    upstream = argparse.ArgumentParser(prog="python -m sglang.launch_server")
    ServerArgs.add_cli_args(upstream)
    upstream.print_help()
    raise SystemExit(0)


def has_flag(argv: list[str], *names: str) -> bool:
    """Whether one of ``names`` was typed, as ``--name value`` or ``--name=value``."""
    return any(word.partition("=")[0] in names for word in argv)


def value_of(argv: list[str], name: str) -> str | None:
    """The value typed for ``--name``, or None."""
    for position, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag == name:
            return value if equals else next(iter(argv[position + 1 :]), None)
    return None


def is_bundled_model(argv: list[str]) -> bool:
    """Whether SGLang was pointed at the bundled model (no model was typed)."""
    return value_of(argv, "--model-path") == str(demo.bundled_model())


def with_model(argv: list[str]) -> list[str]:
    """Add the bundled model, unless a model or a --config file is named."""
    if has_flag(argv, "--model-path", "--model", "--config", "-h", "--help"):
        return argv
    return ["--model-path", str(demo.bundled_model()), *argv]


def wants_cpu(argv: list[str]) -> bool:
    """Whether this server runs on the CPU: asked for, or there is no accelerator."""
    device = value_of(argv, "--device")
    if device is not None:
        return device == "cpu"
    import torch

    return not torch.cuda.is_available()


def with_defaults(argv: list[str], flags: dict[str, str | None]) -> list[str]:
    """Add those of ``flags`` that were not typed; a flag without a value has None."""
    added = [
        word
        for name, value in flags.items()
        if not has_flag(argv, name)
        for word in (name, value)
        if word is not None
    ]
    return [*argv, *added]


def override_args(pattern: str | None, typed_json: str, *, bundled_model: bool) -> str:
    """``--json-model-override-args`` with our flag inside, which takes it to every process.

    The bundled model has a default pattern, used when nothing at all was said about layers.

    Raises:
        ValueError: the typed value is not a JSON object.
    """
    try:
        typed = json.loads(typed_json)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"--json-model-override-args {typed_json!r} is not JSON ({error}); give one JSON object"
        ) from error
    if not isinstance(typed, dict):
        raise ValueError(
            f"--json-model-override-args {typed_json!r} is not a JSON object; "
            'give something like {"index_topk_freq": 4}'
        )
    if pattern is None and bundled_model and not any(key in typed for key in PATTERN_KEYS):
        typed[DEFAULT_KEY] = str(demo.default_pattern_file())
    if pattern is not None:
        typed[FLAG_KEY] = str(Path(pattern).absolute()) if _is_file(pattern) else pattern
    return json.dumps(typed)


def _is_file(pattern: str) -> bool:
    # Processes may be started in another folder; FILE@COUNT keeps its count.
    return bool(pattern) and Path(pattern.partition("@")[0]).is_file()
