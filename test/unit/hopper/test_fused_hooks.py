"""The default replacements on upstream's own prefill of a Full layer: which kernels are called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sglang.srt.plugins.hook_registry", exc_type=ImportError)

from sglang_ic.hopper.fused_hooks import FEWEST_KEYS, FEWEST_ROWS  # noqa: E402

pytestmark = pytest.mark.engine
ROOM = 1 << 40
PIECE = 4 * FEWEST_KEYS * 1000  # bytes of the scores of 1,000 rows


def run(num_rows, budget, *lengths):
    job = Path(__file__).with_name("_upstream_prefill.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", job, *map(str, (num_rows, budget, *lengths))],
        env={**os.environ, "SGLANG_USE_CPU_ENGINE": "1", "SGLANG_PLUGINS": "none"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Multiple AROUND hooks" not in done.stderr + done.stdout
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("budget", [ROOM, PIECE])
def test_a_long_chunk_is_scored_and_selected_from_at_once(budget):
    """Whole, also where its scores would not fit."""
    found = run(FEWEST_ROWS, budget, FEWEST_KEYS)
    assert found == {"calls": [["fused", FEWEST_ROWS]], "selected": [7]}


def test_few_rows_take_two_steps():
    num_rows = FEWEST_ROWS - 1
    found = run(num_rows, ROOM, FEWEST_KEYS)
    assert found == {"calls": [["DeepGEMM", num_rows], ["ragged", num_rows]], "selected": [5]}


def test_short_requests_take_two_steps_in_pieces_as_upstream_cuts_them():
    found = run(FEWEST_ROWS, PIECE, FEWEST_KEYS - 64, 64)
    pieces = [1000, 1000, FEWEST_ROWS - 2000]
    expected = [[name, rows] for rows in pieces for name in ("DeepGEMM", "ragged")]
    assert found == {"calls": expected, "selected": [5]}
