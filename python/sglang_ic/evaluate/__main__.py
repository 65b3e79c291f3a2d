"""`python -m sglang_ic.evaluate`: see cli.py."""

import sys

from sglang_ic.evaluate.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
