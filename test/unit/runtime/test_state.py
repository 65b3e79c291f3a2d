"""One forward pass: who may write, who may read, and what is refused. Needs torch only."""

import pytest
import torch

from sglang_ic.pattern import LayerPattern
from sglang_ic.runtime.roles import LayerRoles
from sglang_ic.runtime.state import IndexCacheError, IndexCacheState, candidates_of

K = 4


def roles(text="FSFS", start=0, end=None, build_all=False):
    pattern = LayerPattern.parse(text, len(text))
    return LayerRoles(pattern, start, len(text) if end is None else end, build_all=build_all)


def rows(value):
    return torch.full((3, K), value, dtype=torch.int32)


def test_shared_layer_reads_what_the_nearest_full_layer_published():
    state = IndexCacheState(roles())
    first, second = rows(1), rows(2)
    assert state.runs_indexer(0)
    state.publish(0, first)
    assert not state.runs_indexer(1)
    assert state.topk_for(1) is first
    state.publish(1, first)
    assert state.runs_indexer(2)
    state.publish(2, second)
    assert not state.runs_indexer(3)
    assert state.topk_for(3) is second
    state.close(all_layers=True)
    assert (state.num_run, state.num_skipped) == (2, 2)


def test_shared_layer_asked_before_any_full_layer_wrote_is_an_error():
    state = IndexCacheState(roles())
    state.runs_indexer(0)
    state.runs_indexer(1)
    with pytest.raises(IndexCacheError, match="needs the indices of Full layer 0.*holds nothing"):
        state.topk_for(1)


def test_indices_of_an_older_full_layer_are_an_error():
    state = IndexCacheState(roles())
    state.publish(0, rows(1))
    with pytest.raises(IndexCacheError, match="of Full layer 2, but .* those of layer 0"):
        state.topk_for(3)


def test_full_layer_that_needed_no_indices_leaves_none_to_read():
    state = IndexCacheState(roles())
    state.publish(0, None)
    with pytest.raises(IndexCacheError, match="those of layer 0"):
        state.topk_for(1)


def test_layers_out_of_order_are_two_passes_in_one_state():
    state = IndexCacheState(roles())
    state.runs_indexer(0)
    with pytest.raises(IndexCacheError, match="layer 0 asked .* while layer 1 was due"):
        state.runs_indexer(0)


@pytest.mark.parametrize(
    "use",
    [
        lambda state: state.runs_indexer(0),
        lambda state: state.topk_for(1),
        lambda state: state.publish(0, rows(1)),
        lambda state: state.close(all_layers=True),
    ],
)
def test_state_of_an_ended_pass_is_refused(use):
    state = IndexCacheState(roles())
    state.close(all_layers=True)
    with pytest.raises(IndexCacheError, match="has ended"):
        use(state)


def test_a_layer_that_never_asked_is_an_error_at_the_end():
    state = IndexCacheState(roles())
    state.runs_indexer(0)
    with pytest.raises(IndexCacheError, match="layer 1 of .0, 4. never asked"):
        state.close(all_layers=True)
    state = IndexCacheState(roles())
    state.runs_indexer(0)
    state.close(all_layers=False)


def test_a_pass_with_zero_rows_asks_nothing_and_ends_well():
    state = IndexCacheState(roles())
    state.close(all_layers=True)
    assert (state.num_run, state.num_skipped) == (0, 0)


def test_second_pipeline_stage_starts_with_what_the_first_one_sent():
    sent = rows(7)
    state = IndexCacheState(roles("FSSF", start=2), sent)
    assert state.owner_layer == 0
    assert not state.runs_indexer(2)
    assert state.topk_for(2) is sent
    assert state.runs_indexer(3)
    state.publish(3, rows(8))
    state.close(all_layers=True)


def test_second_stage_without_indices_refuses_its_shared_layer():
    state = IndexCacheState(roles("FSSF", start=2))
    state.runs_indexer(2)
    with pytest.raises(IndexCacheError, match="holds nothing"):
        state.topk_for(2)


def test_the_pattern_of_a_running_pass_does_not_change_under_it():
    held = roles("FSFS", build_all=True)
    state = IndexCacheState(held)
    held.set_pattern(held.parse("FFFF"))
    state.runs_indexer(0)
    assert not state.runs_indexer(1)


def test_roles_say_what_a_stage_runs():
    assert roles("FSSF").per_pass == (2, 2)
    assert roles("FSSF", start=1, end=3).per_pass == (0, 2)


def test_a_server_built_for_one_pattern_refuses_another():
    with pytest.raises(ValueError, match="index_cache_build"):
        roles("FSFS").parse("FFFF")


def test_counts_add_up():
    held = roles("FSFS")
    held.count((2, 2))
    held.count((2, 2))
    assert held.totals == (4, 4)


def candidate_roles(monkeypatch, text="FSCSC", pages="20"):
    monkeypatch.setenv("SGLANG_IC_APPROXIMATE_CANDIDATE_PAGES", pages)
    return LayerRoles(LayerPattern(text), 0, len(text), build_all=True, index_topk=K)


def test_candidate_layer_reads_the_selection_before_it_and_publishes_its_own(monkeypatch):
    state = IndexCacheState(candidate_roles(monkeypatch))
    first, second = rows(1), rows(2)
    state.publish(0, first)
    assert [state.candidates_for(layer) for layer in (0, 1)] == [None, None]
    assert state.runs_indexer(0) and not state.runs_indexer(1) and state.runs_indexer(2)
    assert state.candidates_for(2) is first
    state.publish(2, second)
    assert not state.runs_indexer(3)
    assert state.topk_for(3) is second
    assert state.candidates_for(4) is second
    assert state.runs_indexer(4)
    state.close(all_layers=True)
    assert (state.num_run, state.num_skipped) == (3, 2)


def test_candidates_of_another_layer_are_an_error(monkeypatch):
    state = IndexCacheState(candidate_roles(monkeypatch))
    state.publish(0, rows(1))
    with pytest.raises(IndexCacheError, match="layer 4 needs the indices of candidate layer 2"):
        state.candidates_for(4)
    state.close(all_layers=False)
    with pytest.raises(IndexCacheError, match="has ended"):
        state.candidates_for(2)


def test_a_pass_that_needs_no_indices_has_no_candidates(monkeypatch):
    state = IndexCacheState(candidate_roles(monkeypatch))
    state.publish(0, None)
    assert state.candidates_for(2) is None


def test_an_indexer_asks_the_batch_for_its_candidates(monkeypatch):
    from types import SimpleNamespace

    assert candidates_of(SimpleNamespace(), 1) is None
    assert candidates_of(SimpleNamespace(index_cache=None), 1) is None
    state = IndexCacheState(candidate_roles(monkeypatch))
    held = rows(1)
    state.publish(0, held)
    batch = SimpleNamespace(index_cache=state)
    assert candidates_of(batch, 1) is None
    previous, num_pages = candidates_of(batch, 2)
    assert previous is held and num_pages == 20


def test_roles_take_candidate_layers_only_with_enough_pages(monkeypatch):
    held = candidate_roles(monkeypatch)
    assert held.candidate_pages == 20 and held.per_pass == (3, 2)
    held.set_pattern(held.parse("FSFSF"))
    assert held.candidate_pages is None
    monkeypatch.setenv("SGLANG_IC_APPROXIMATE_CANDIDATE_PAGES", "16")
    with pytest.raises(ValueError, match="too small"):
        held.parse("FCCCC")
