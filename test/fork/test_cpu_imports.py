"""The patched SGLang imports on a bare CPU machine. Needs the patched SGLang."""

import importlib.util
import os
import subprocess
import sys

import pytest

CHECK = """
import sglang.srt.entrypoints.http_server
import sglang.srt.managers.scheduler
import sglang.srt.models.deepseek_v2
from sglang.kernels.ops.kvcache.cache_move import copy_all_layer_kv_cache_cpu
try:
    copy_all_layer_kv_cache_cpu()
except ImportError as error:
    print(error)
"""


@pytest.mark.engine
def test_the_server_imports_without_torchvision_and_sgl_kernel():
    for package in ("torchvision", "sgl_kernel"):
        assert importlib.util.find_spec(package) is None, (
            f"{package} is not in requirements/cpu.txt"
        )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHECK],
        env={**os.environ, "SGLANG_USE_CPU_ENGINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sgl_kernel.copy_all_layer_kv_cache_cpu was called" in done.stdout
