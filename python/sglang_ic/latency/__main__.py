"""python -m sglang_ic.latency: see cli.py."""

import sys

from sglang_ic.latency.cli import main

if __name__ == "__main__":
    sys.exit(main())
