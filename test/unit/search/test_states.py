"""What layers start from: never stale, and there when it should be."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from sglang_ic.search.stack import Entry
from sglang_ic.search.states import Layout, StateStore

NUM_LAYERS, NUM_SEQUENCES = 7, 2
patterns = st.text("FS", min_size=NUM_LAYERS - 1, max_size=NUM_LAYERS - 1).map("F".__add__)


def entry_of(sequence: int, pattern: str, layer: int) -> Entry:
    """What a layer is handed, by a model that never forgets: all that happened below."""
    letters = [sequence, *(ord(letter) for letter in pattern[:layer])]
    return Entry(torch.tensor(letters), torch.tensor(letters), None)


def evaluate(store: StateStore, sequence: int, pattern: str) -> int:
    """A pass, checked against what it should start from; the layer it began with."""
    start, entries = store.resume(sequence, pattern)
    if entries is None:
        assert start == 0
    else:
        (found,) = entries
        assert found.hidden.tolist() == entry_of(sequence, pattern, start).hidden.tolist()
    wanted = store.make_room(sequence, pattern)
    assert all(layer > start for layer in wanted)
    made = {layer: [entry_of(sequence, pattern, layer)] for layer in wanted}
    store.record(sequence, pattern, made)
    return start


@given(
    st.sets(st.integers(1, NUM_LAYERS - 1)),
    st.lists(
        st.tuples(st.booleans(), st.integers(0, NUM_SEQUENCES - 1), patterns),
        max_size=30,
    ),
)
def test_a_pass_never_starts_from_another_patterns_state(kept, operations):
    store = StateStore(kept, NUM_SEQUENCES)
    store.rebase("F" * NUM_LAYERS)
    for new_base, sequence, pattern in operations:
        if new_base:
            store.rebase(pattern)
        evaluate(store, sequence, pattern)


def test_a_variation_of_the_base_begins_where_it_differs():
    store = StateStore(range(1, NUM_LAYERS), NUM_SEQUENCES)
    store.rebase("FFFFFFF")
    assert evaluate(store, 0, "FFFFFFF") == 0
    for layer in range(1, NUM_LAYERS):
        variation = "F" * layer + "S" + "F" * (NUM_LAYERS - layer - 1)
        assert evaluate(store, 0, variation) == layer
    assert evaluate(store, 1, "FFFFFFS") == 0  # another sequence has its own


def test_after_a_conversion_states_come_back_by_the_way():
    store = StateStore(range(1, NUM_LAYERS), NUM_SEQUENCES)
    store.rebase("FFFFFFF")
    evaluate(store, 0, "FFFFFFF")
    store.rebase("FFSFFFF")
    assert evaluate(store, 0, "FFSFFSF") == 2  # and hands on what layers 3 to 5 need
    assert evaluate(store, 0, "FFSFSFF") == 4
    assert evaluate(store, 0, "FFSFFFS") == 5
    assert evaluate(store, 0, "FSSFFFF") == 1  # below the conversion nothing was lost


def test_with_few_kept_layers_a_pass_begins_at_the_nearest_one_below():
    store = StateStore([2, 5], NUM_SEQUENCES)
    store.rebase("FFFFFFF")
    evaluate(store, 0, "FFFFFFF")
    starts = [evaluate(store, 0, "F" * x + "S" + "F" * (6 - x)) for x in range(1, 7)]
    assert starts == [0, 2, 2, 2, 5, 5]


def test_without_kept_layers_every_pass_is_whole():
    store = StateStore([], NUM_SEQUENCES)
    store.rebase("FFFFFFF")
    assert [evaluate(store, 0, "FFFFFFF"), evaluate(store, 0, "FFFFFFS")] == [0, 0]


def test_a_layout_keeps_what_fits_evenly_spread():
    wanted = list(range(1, 9))
    assert Layout.plan(10, 100, wanted, 8000).layers == tuple(wanted)
    assert Layout.plan(10, 100, wanted, 7999).layers == (1, 2, 3, 4, 5, 6, 7)
    assert Layout.plan(10, 100, wanted, 4000).layers == (1, 3, 5, 7)
    assert Layout.plan(10, 100, wanted, 1999).layers == (1,)
    assert Layout.plan(10, 100, wanted, 999).layers == ()
    assert Layout.plan(10, 100, [], 10**9).layers == ()


class OnDevice:
    """A tensor as far as the store looks at one."""

    def __init__(self, nbytes: int, where: str = "cuda") -> None:
        self.nbytes, self.device = nbytes, torch.device(where)

    def cpu(self) -> "OnDevice":
        return OnDevice(self.nbytes, "cpu")


def test_entries_stay_on_the_device_while_there_is_room():
    store = StateStore([1, 2, 3], 1, device_bytes=250)
    store.rebase("FSSS")
    topk = OnDevice(60)
    placed = [store.place(Entry(OnDevice(20), OnDevice(20), topk)) for _ in range(4)]
    assert [entry.hidden.device.type for entry in placed] == ["cuda", "cuda", "cpu", "cpu"]
    assert placed[2].topk is placed[3].topk and placed[2].topk.device.type == "cpu"
    other = store.place(Entry(OnDevice(90), OnDevice(90), OnDevice(60)))
    assert other.topk is not placed[2].topk
    store.record(0, "FSSS", {layer: [placed[layer - 1]] for layer in (1, 2, 3)})
    store.rebase("FFSS")
    assert store.make_room(0, "FFSS") == (2, 3)
    assert store.device_bytes_left == 250 - 100  # layer 2's went, layer 1's still serves


def test_entries_without_indices_are_placed_too():
    store = StateStore([1], 1, device_bytes=0)
    assert store.place(Entry(OnDevice(5), OnDevice(5), None)).topk is None
