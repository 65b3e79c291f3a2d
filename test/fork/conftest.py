"""Fixtures of the fork's tests: a synthetic checkout, so that a test takes milliseconds.

They need nothing but pytest and hypothesis; `test_real_wheel.py` alone looks at the pinned wheel.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

# pytest's importlib mode puts no test directory on the path, and the tests share `_synthetic`.
sys.path.append(str(Path(__file__).parent))

from _synthetic import FILES, MODEL, Upstream  # noqa: E402

from sglang_ic.fork.ledger import BEGIN, END  # noqa: E402


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """A checkout whose series is empty, in an interpreter that has no SGLang of its own."""

    def missing(name: str):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    made = Upstream(tmp_path)
    made.write_wheel(FILES)
    (made.patches / "series").write_text("# none yet\n")
    (made.patches / "README.md").write_text(f"# Patches\n{BEGIN}\n{END}\n")
    guard = tmp_path / "test/fork/test_model.py"
    guard.parent.mkdir(parents=True)
    guard.write_text("def test_guard():\n    pass\n")
    return made


@pytest.fixture
def forked(upstream: Upstream) -> Upstream:
    """The same with two patches: edits, a new file, a deletion, and a missing last newline."""
    model = FILES[MODEL]
    upstream.add(
        "model-change-lines.patch",
        {
            MODEL: model.replace(b"line 3\n", b"line three\n").replace(b"line 30\n", b""),
            "sglang/srt/fresh/new.py": b"new = 1\n",
            "sglang/srt/old.py": None,
        },
    )
    upstream.add(
        "model-add-tail.patch",
        {
            MODEL: model.replace(b"line 3\n", b"line three\n").replace(b"line 30\n", b"")
            + b"line 41\n",
            "sglang/srt/tail.py": b"first\nlast, still without newline",
        },
    )
    assert upstream.run("refresh") == 0
    return upstream


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]):
    """Return a check: the command exited with 2 and said one line that matches every pattern."""

    def check(code: int, *patterns: str) -> None:
        error = capsys.readouterr().err
        assert code == 2, error
        assert error.count("\n") == 1 and error.startswith("error: "), error
        for pattern in patterns:
            assert re.search(pattern, error), f"{pattern!r} is not in {error!r}"

    return check
