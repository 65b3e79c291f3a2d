"""`python -m sglang_ic.fork`: see cli.py."""

import sys

from .cli import main

sys.exit(main())
