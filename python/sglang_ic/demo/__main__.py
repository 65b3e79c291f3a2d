"""`python -m sglang_ic.demo [DIR]`: write the demo model (once) and print where it is."""

import sys

from sglang_ic.demo.make_model import main

if __name__ == "__main__":
    sys.exit(main())
