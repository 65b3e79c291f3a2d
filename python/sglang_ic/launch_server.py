"""``python -m sglang_ic.launch_server``: SGLang's server with IndexCache.

Takes every flag of ``sglang.launch_server`` and adds ``--index-cache-pattern``. Without
``--model-path`` it serves the bundled model; without a GPU it fills in the flags that DSA on CPU
needs. Whatever is typed wins over both. Bad input ends with one line and exit code 2.
"""

from __future__ import annotations

import os
import sys

from sglang_ic.server import arguments


def main(argv: list[str]) -> None:
    """Parse, resolve and check everything, then hand over to SGLang until it stops."""
    own, rest = arguments.split(argv)
    rest = arguments.with_model(rest)
    if arguments.wants_cpu(rest):
        # Read by sglang when it is imported, and inherited by its processes.
        os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")
        rest = arguments.with_defaults(rest, arguments.CPU_FLAGS)
    elif arguments.is_bundled_model(rest):
        for name, value in arguments.BUNDLED_CUDA_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        rest = arguments.with_defaults(rest, arguments.BUNDLED_CUDA_FLAGS)

    from sglang.launch_server import run_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    load_plugins()
    if own.help:
        arguments.print_help()
    server_args = prepare_server_args(rest)
    try:
        server_args.json_model_override_args = arguments.override_args(
            own.index_cache_pattern,
            server_args.json_model_override_args,
            bundled_model=arguments.is_bundled_model(rest),
        )
        server_args.resolve_once()
    except (ValueError, OSError, AssertionError) as error:
        fail(error)
    try:
        run_server(server_args)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


def fail(error: Exception) -> None:
    """One line and exit code 2; an error without a text keeps its traceback."""
    text = " ".join(str(error).split())
    if not text:
        raise error
    print(f"sglang_ic.launch_server: error: {text}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
