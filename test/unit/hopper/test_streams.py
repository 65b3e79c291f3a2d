"""Streams by role, told by what is issued where: no GPU, but streams that keep a log."""

import contextlib
from types import SimpleNamespace

import pytest

from sglang_ic.hopper import streams

pytest.importorskip("sglang.srt.model_executor.runner", exc_type=ImportError)

FULL, SHARED = 0, 1
PREPARE = [streams.prepare_beside_the_indexer, streams.prepare_by_role]


class Gpu:
    """In place of torch.cuda: a current stream, and a log of what was issued on which."""

    def __init__(self):
        self.log, self.current = [], "main"

    def issue(self, what):
        self.log.append(f"{self.current}: {what}")

    def named(self, name):
        def wait_stream(other):
            self.log.append(f"{name} waits for {other.name}")

        return SimpleNamespace(name=name, device="cuda:0", wait_stream=wait_stream)

    def current_stream(self):
        return self.named(self.current)

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream.name
        yield
        self.current = before


@pytest.fixture
def gpu(monkeypatch):
    made = Gpu()
    monkeypatch.setattr(streams, "torch", SimpleNamespace(cuda=made))
    monkeypatch.setattr(streams, "_side", lambda device: made.named("side"))
    monkeypatch.setattr("sglang.srt.model_executor.runner.get_is_capture_mode", lambda: True)
    return made


def batch(*, decodes=True, has_state=True):
    pattern = SimpleNamespace(runs_indexer=lambda layer: layer == FULL)
    state = SimpleNamespace(pattern=pattern) if has_state else None
    mode = SimpleNamespace(is_decode=lambda: decodes)
    return SimpleNamespace(index_cache=state, forward_mode=mode)


def layer(gpu, layer_id, fails=False):
    """An attention layer, and upstream's method: indexer, q_b_proj, the product, RoPE."""

    def indexer(self, x):
        gpu.issue("indexer")
        return "selection"

    def forward_absorb_prepare(self, positions, hidden_states, forward_batch, zero_allocator):
        found = None
        if self.layer_id == FULL:
            found = streams.indexer_beside(indexer, self.indexer, x=hidden_states)
        if fails:
            raise ValueError("in the middle")
        gpu.issue("projections" + (" and second" if self.alt_stream else ""))
        return found

    made = SimpleNamespace(layer_id=layer_id, is_nextn=False, indexer="its", alt_stream="second")
    return made, forward_absorb_prepare


@pytest.mark.parametrize("prepare", PREPARE)
def test_a_full_layers_indexer_runs_beside_its_projections(gpu, prepare):
    attention, original = layer(gpu, FULL)
    assert prepare(original, attention, 0, 0, batch(), zero_allocator=None) == "selection"
    assert gpu.log == [
        "side waits for main",
        "side: indexer",
        "main: projections and second",
        "main waits for side",
    ]


def test_a_shared_layer_runs_on_one_stream(gpu):
    attention, original = layer(gpu, SHARED)
    streams.prepare_by_role(original, attention, 0, 0, batch(), None)
    streams.prepare_beside_the_indexer(original, attention, 0, 0, batch(), None)
    assert gpu.log == ["main: projections", "main: projections and second"]
    assert attention.alt_stream == "second"


@pytest.mark.parametrize("prepare", PREPARE)
@pytest.mark.parametrize("layer_id", [FULL, SHARED])
@pytest.mark.parametrize(
    "given", [{"decodes": False}, {"has_state": False}, {"captures": False}, {"is_nextn": True}]
)
def test_all_else_is_left_to_upstream(gpu, monkeypatch, prepare, layer_id, given):
    given = dict(given)
    attention, original = layer(gpu, layer_id)
    attention.is_nextn = given.pop("is_nextn", False)
    captures = given.pop("captures", True)
    monkeypatch.setattr("sglang.srt.model_executor.runner.get_is_capture_mode", lambda: captures)
    prepare(original, attention, 0, 0, batch(**given), None)
    expected = ["main: indexer"] * (layer_id == FULL) + ["main: projections and second"]
    assert gpu.log == expected


@pytest.mark.parametrize("layer_id", [FULL, SHARED])
def test_nothing_stays_set_behind_a_failure(gpu, layer_id):
    attention, original = layer(gpu, layer_id, fails=True)
    with pytest.raises(ValueError, match="in the middle"):
        streams.prepare_by_role(original, attention, 0, 0, batch(), None)
    assert attention.alt_stream == "second" and not streams._Beside.may
    gpu.log.clear()
    attention, original = layer(gpu, SHARED)
    streams.prepare_beside_the_indexer(original, attention, 0, 0, batch(), None)
    streams.indexer_beside(lambda *_: gpu.issue("indexer"), "its")
    assert gpu.log == ["main: projections and second", "main: indexer"]
