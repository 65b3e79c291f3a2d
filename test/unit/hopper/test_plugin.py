"""The plugin: nothing without a switch, one line when it cannot do what a switch says."""

import os
import subprocess
import sys

import pytest

from sglang_ic.candidates.switch import CANDIDATE_PAGES
from sglang_ic.hopper import plugin
from sglang_ic.hopper.switches import (
    DECODE_STREAMS,
    NAMES,
    PREFILL_ATTENTION,
    PREFILL_PADDING,
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
    monkeypatch.setattr("sglang.srt.utils.is_cuda", lambda: True)
    return found


def test_nothing_is_attached_without_a_switch(attached):
    plugin.register()
    assert attached == []


def test_the_topk_switch_attaches_its_hook(monkeypatch, attached):
    monkeypatch.setenv(PREFILL_TOPK, "ragged")
    plugin.register()
    assert attached == ["topk_with_ragged_kernel"]


def test_the_variable_of_candidate_layers_attaches_their_hook(monkeypatch, attached):
    monkeypatch.setenv(CANDIDATE_PAGES, "512")
    plugin.register()
    assert attached == ["topk_of_candidates"]


def test_candidate_layers_on_cpu_attach_nothing_here(monkeypatch, attached):
    monkeypatch.setenv(CANDIDATE_PAGES, "512")
    monkeypatch.setattr("sglang.srt.utils.is_cuda", lambda: False)
    plugin.register()
    assert attached == []


def test_fused_scores_attach_to_both_steps(monkeypatch, attached):
    monkeypatch.setenv(PREFILL_SCORES, "fused")
    plugin.register()
    assert attached == ["topk_with_fused_kernel", "scores_with_fused_kernel"]


def test_overlapping_queries_attach_where_they_are_made_and_where_they_are_read(
    monkeypatch, attached
):
    monkeypatch.setenv(PREFILL_PADDING, "overlap")
    plugin.register()
    assert attached == ["concat_with_room", "attend_without_copies"]


def test_heads_as_they_are_attach_where_the_parts_are_kept_and_where_they_attend(
    monkeypatch, attached
):
    monkeypatch.setenv(PREFILL_ATTENTION, "heads")
    plugin.register()
    assert attached == ["extend_with_parts", "keep_parts", "attend_to_parts"]


def test_two_switches_for_one_step_stop_the_process(monkeypatch, attached):
    monkeypatch.setenv(PREFILL_ATTENTION, "heads")
    monkeypatch.setenv(PREFILL_PADDING, "overlap")
    with pytest.raises(SystemExit, match="sglang_ic: SGLANG_IC_PREFILL_PADDING=overlap: "):
        plugin.register()


@pytest.mark.parametrize(
    "choice, prepare", [("indexer", "prepare_beside_the_indexer"), ("roles", "prepare_by_role")]
)
def test_streams_attach_to_the_layer_and_to_its_indexer(monkeypatch, attached, choice, prepare):
    monkeypatch.setenv(DECODE_STREAMS, choice)
    plugin.register()
    assert attached == [prepare, "indexer_beside"]


def test_streams_need_roles_and_so_the_patched_sglang(monkeypatch, attached):
    monkeypatch.setenv(DECODE_STREAMS, "roles")
    monkeypatch.setattr(plugin, "_is_patched", lambda: False)
    with pytest.raises(SystemExit, match="SGLANG_IC_DECODE_STREAMS needs the patched SGLang"):
        plugin.register()


def test_a_switch_without_a_gpu_stops(monkeypatch, attached):
    monkeypatch.setenv(PREFILL_TOPK, "ragged")
    monkeypatch.setattr("sglang.srt.utils.is_cuda", lambda: False)
    with pytest.raises(SystemExit, match="SGLANG_IC_DECODE_STREAMS need an NVIDIA GPU"):
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

topk, scores, padding, attention, num_seams = (word or None for word in sys.argv[1:])
wanted = plugin.seams(Switches(topk, scores, padding, attention, "roles"))
wanted += (plugin.CANDIDATES,)
assert len(wanted) == int(num_seams) and all(seam.problem() for seam in wanted)
attach(wanted, "a test")
assert not any(seam.problem() for seam in wanted)

from sglang.srt.layers.attention.dsa import dsa_indexer
from sglang_ic.hopper import hooks
assert topk or dsa_indexer.resolve_fp8_mqa_logits_fn() is hooks._deferred_mqa_logits
print("attached")
"""


@pytest.mark.engine
@pytest.mark.parametrize(
    "choices",
    [
        ("ragged", "", "overlap", "", "6"),
        ("ragged", "", "", "heads", "7"),
        ("", "fused", "", "heads", "8"),
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
