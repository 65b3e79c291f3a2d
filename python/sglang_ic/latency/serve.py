"""python -m sglang_ic.latency.serve ENGINE FLAGS: the server of one arm, or of several.

`fork` is sglang_ic's server, `stock` is upstream's, each started as its own launcher starts it. It
ends with the process that started it, however that ends: a server left on a GPU would take the
memory of the next one. SGLang's processes import this module again; the scheduler's gets the
handlers of in_scheduler.py then, before SGLang makes a scheduler.
"""

from __future__ import annotations

import os
import sys

from sglang_ic.latency import in_scheduler


def main(argv: list[str]) -> None:
    from sglang.srt.utils import kill_itself_when_parent_died

    kill_itself_when_parent_died()
    engine, flags = argv[0], argv[1:]
    if engine == "fork":
        from sglang_ic.launch_server import main as launch

        launch(flags)
        return
    assert engine == "stock", engine
    from sglang.launch_server import run_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    load_plugins()
    try:
        run_server(prepare_server_args(flags))
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


if __name__ == "__mp_main__":  # a process that SGLang spawned
    in_scheduler.install()
if __name__ == "__main__":
    main(sys.argv[1:])
