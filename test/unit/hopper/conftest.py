"""Kernels without a GPU: a process that interprets them, kept for all tests."""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")


@pytest.fixture(scope="session")
def interpreted():
    """`interpreted(name, *args, **kwargs)`: a function of the package, run by the interpreter."""
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("_interpreter.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def call(name, *args, **kwargs):
        torch.save((name, args, kwargs), message := io.BytesIO())
        pickle.dump(message.getvalue(), process.stdin)
        process.stdin.flush()
        answer = io.BytesIO(pickle.load(process.stdout))
        result, error = torch.load(answer, weights_only=False)
        assert error is None, error
        return result

    yield call
    process.stdin.close()
    assert process.wait(30) == 0
