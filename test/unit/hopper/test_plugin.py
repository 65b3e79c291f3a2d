"""The plugin: what was measured runs on a Hopper GPU, and one line where a switch cannot be met."""

import os
import subprocess
import sys

import pytest

from sglang_ic.candidates.switch import CANDIDATE_PAGES
from sglang_ic.hopper import plugin
from sglang_ic.hopper.switches import (
    DECODE_ATTENTION,
    DECODE_STREAMS,
    NAMES,
    OFF,
    PREFILL_ATTENTION,
    PREFILL_SCORES,
    PREFILL_TOPK,
)

pytest.importorskip("sglang.srt.plugins.hook_registry", exc_type=ImportError)


@pytest.fixture(autouse=True)
def _no_switches(monkeypatch):
    for name in (*NAMES, CANDIDATE_PAGES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def attached(monkeypatch):
    """Hooks that the plugin attaches, instead of attaching them."""
    found = []
    monkeypatch.setattr(
        plugin,
        "attach",
        lambda seams, purpose: found.extend(seam.hook.rsplit(".", 1)[1] for seam in seams),
    )
    monkeypatch.setattr(plugin, "_is_cuda", lambda: True)
    monkeypatch.setattr(plugin, "_is_hopper", lambda: True)
    return found


@pytest.fixture
def all_off(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, OFF)


TOPK = ["topk_with_ragged_kernel"]
BOTH, ONLY_FUSED = ["topk_with_both_kernels"], ["topk_with_fused_kernel"]
FUSED = ["scores_with_fused_kernel", "prefill_without_scores", "whole_chunks"]
HEADS = ["extend_with_parts", "keep_parts", "attend_to_parts"]
SPLIT = ["mark_decode", "decode_in_splits"]


def test_what_was_measured_runs_without_a_word(attached):
    plugin.register()
    assert attached == [*BOTH, *FUSED, *HEADS, *SPLIT]


def test_nothing_runs_where_all_is_off(attached, all_off):
    plugin.register()
    assert attached == []


@pytest.mark.parametrize(
    "name, left",
    [
        (PREFILL_TOPK, [*ONLY_FUSED, *FUSED, *HEADS, *SPLIT]),
        (PREFILL_SCORES, [*TOPK, *HEADS, *SPLIT]),
        (PREFILL_ATTENTION, [*BOTH, *FUSED, *SPLIT]),
        (DECODE_ATTENTION, [*BOTH, *FUSED, *HEADS]),
    ],
)
def test_each_is_turned_off_by_itself(monkeypatch, attached, name, left):
    monkeypatch.setenv(name, OFF)
    plugin.register()
    assert attached == left


@pytest.mark.parametrize("major, is_hopper", [(8, False), (9, True), (10, False)])
def test_hopper_is_told_by_its_number(monkeypatch, major, is_hopper):
    monkeypatch.setattr(plugin, "_is_cuda", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (major, 0))
    assert plugin._is_hopper() == is_hopper


@pytest.mark.parametrize("is_cuda", [False, True])
def test_nothing_runs_on_other_hardware(monkeypatch, attached, is_cuda):
    monkeypatch.setattr(plugin, "_is_cuda", lambda: is_cuda)
    monkeypatch.setattr(plugin, "_is_hopper", lambda: False)
    plugin.register()
    assert attached == []


def test_the_variable_of_candidate_layers_attaches_their_hook(monkeypatch, attached, all_off):
    monkeypatch.setenv(CANDIDATE_PAGES, "512")
    plugin.register()
    assert attached == ["topk_of_candidates"]


def test_candidate_layers_on_cpu_attach_nothing_here(monkeypatch, attached):
    monkeypatch.setenv(CANDIDATE_PAGES, "512")
    monkeypatch.setattr(plugin, "_is_cuda", lambda: False)
    monkeypatch.setattr(plugin, "_is_hopper", lambda: False)
    plugin.register()
    assert attached == []


@pytest.mark.parametrize(
    "choice, prepare", [("indexer", "prepare_beside_the_indexer"), ("roles", "prepare_by_role")]
)
def test_streams_attach_to_the_layer_and_to_its_indexer(
    monkeypatch, attached, all_off, choice, prepare
):
    monkeypatch.setenv(DECODE_STREAMS, choice)
    plugin.register()
    assert attached == [prepare, "indexer_beside"]


def test_decode_in_splits_attaches_to_flash_attentions_call(monkeypatch, attached, all_off):
    monkeypatch.setenv(DECODE_ATTENTION, "split")
    plugin.register()
    assert attached == ["mark_decode", "decode_in_splits"]


def test_streams_need_roles_and_so_the_patched_sglang(monkeypatch, attached):
    monkeypatch.setenv(DECODE_STREAMS, "roles")
    monkeypatch.setattr(plugin, "_is_patched", lambda: False)
    with pytest.raises(SystemExit, match="SGLANG_IC_DECODE_STREAMS needs the patched SGLang"):
        plugin.register()


def test_what_is_asked_for_without_a_hopper_gpu_stops(monkeypatch, attached):
    monkeypatch.setenv(PREFILL_TOPK, "ragged")
    monkeypatch.setenv(PREFILL_ATTENTION, OFF)
    monkeypatch.setattr(plugin, "_is_hopper", lambda: False)
    with pytest.raises(SystemExit, match="SGLANG_IC_PREFILL_TOPK: there is no Hopper GPU here"):
        plugin.register()


def test_a_wrong_switch_stops_the_process(monkeypatch, attached):
    monkeypatch.setenv(PREFILL_TOPK, "yes")
    with pytest.raises(SystemExit, match="sglang_ic: SGLANG_IC_PREFILL_TOPK=yes: accepted is"):
        plugin.register()


ATTACH = """
import sys
from sglang_ic.hopper import plugin
from sglang_ic.hopper.switches import Switches
from sglang_ic.seams import attach

topk, scores, attention, num_seams = (word or None for word in sys.argv[1:])
wanted = plugin.seams(Switches(topk, scores, attention, "split", "roles"))
wanted += (plugin.CANDIDATES,)
assert len(wanted) == int(num_seams) and all(seam.problem() for seam in wanted)
attach(wanted, "a test")
assert not any(seam.problem() for seam in wanted)

from sglang.srt.layers.attention.dsa import dsa_indexer
from sglang_ic.hopper import fused_hooks
from sglang_ic.hopper.marks import marked
with marked(fused_hooks._unwritten):
    question = not scores or dsa_indexer.resolve_fp8_mqa_logits_fn()
assert question is (not scores or fused_hooks._deferred_mqa_logits)
print("attached")
"""


@pytest.mark.engine
@pytest.mark.parametrize(
    "choices",
    [
        ("ragged", "", "heads", "9"),
        ("", "fused", "heads", "12"),
        ("ragged", "fused", "heads", "12"),
    ],
    ids=" ".join,
)
def test_the_hooks_really_run_on_upstreams_functions(choices):
    """In a process of its own: attaching changes SGLang for good."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ATTACH, *choices],
        env={**os.environ, "SGLANG_USE_CPU_ENGINE": "1", "SGLANG_PLUGINS": "none"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("attached\n"), done.stderr[-2000:]
