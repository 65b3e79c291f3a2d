"""`python -m sglang_ic.bench`: see cli.py."""

import sys

from sglang_ic.bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
