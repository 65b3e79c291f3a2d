"""`python -m sglang_ic.search`: see cli.py."""

import sys

from sglang_ic.search.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
