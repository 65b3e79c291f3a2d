"""python -m sglang_ic.demo.train: see cli.py."""

from sglang_ic.demo.train.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
