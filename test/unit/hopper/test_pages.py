"""The kernels of candidate layers against their references, in Triton's interpreter."""

import pytest
import torch

from sglang_ic.candidates import pages as rule
from sglang_ic.hopper import reference


def int32(values):
    return torch.tensor(values, dtype=torch.int32)


def drawn(rows, topk, high, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, high, (rows, topk), generator=generator, dtype=torch.int32)


@pytest.mark.parametrize("topk", [1, 5, 1024, 2048])
def test_positions_are_counted_by_page(interpreted, topk):
    selected, groups = drawn(6, topk, 1500), int32([0, 0, 1, 1, 1, 2])
    found = interpreted("count_selected", selected, groups, 3, 24)
    assert torch.equal(found, reference.count_selected(selected, groups, 3, 24))
    assert found.sum() == (selected >= 0).sum()


def test_slots_are_counted_by_the_page_they_are_in(interpreted):
    page_of = torch.randperm(40).int() - 10  # ten pages of the pool belong to nobody
    selected, groups = drawn(5, 300, 40 * 64, seed=1), int32([0, 0, 0, 1, 1])
    found = interpreted("count_selected", selected, groups, 2, 20, page_of=page_of)
    expected = reference.count_selected(selected, groups, 2, 20, page_of=page_of)
    assert torch.equal(found, expected)
    assert found.sum() < (selected >= 0).sum()  # some are behind the 20 pages, or in none


def test_offsets_are_counted_from_the_base_of_the_request(interpreted):
    selected, groups = drawn(4, 100, 900, seed=2), int32([0, 0, 1, 1])
    selected = torch.where(selected < 0, selected, selected + 5000)
    found = interpreted("count_selected", selected, groups, 2, 15, base=5000)
    assert torch.equal(found, reference.count_selected(selected, groups, 2, 15, base=5000))


def test_a_part_of_a_wider_selection(interpreted):
    whole, groups = drawn(4, 64, 640, seed=3), int32([0, 1])
    found = interpreted("count_selected", whole[:, :50][1:3], groups, 2, 10)
    assert torch.equal(found, reference.count_selected(whole[1:3, :50], groups, 2, 10))


def test_counts_are_those_of_the_shared_rule(interpreted):
    first, rows = 900, 300  # two groups
    selected = drawn(rows, 16, 900, seed=4)
    groups = rule.group_of_rows(first, rows, selected.device).int()
    expected = rule.count_selected(selected, first)
    found = interpreted("count_selected", selected, groups, *expected.shape)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("topk", [1, 5, 1024, 2048])
@pytest.mark.parametrize("base", [0, 777])
def test_places_become_tokens(interpreted, topk, base):
    pages = torch.randperm(200)[:60].view(3, 20).int()
    places, groups = drawn(4, topk, 20 * 64, seed=5), int32([0, 1, 1, 2])
    expected = reference.look_up_(places.clone(), pages, groups, base=base)
    assert torch.equal(interpreted("look_up_", places, pages, groups, base=base), expected)
    if not base:
        assert torch.equal(rule.look_up(places, pages, groups.long()), expected)


def test_no_rows(interpreted):
    none, groups = torch.empty(0, 8, dtype=torch.int32), int32([])
    assert interpreted("count_selected", none, groups, 0, 4).shape == (0, 4)
    assert interpreted("look_up_", none, torch.zeros(1, 4).int(), groups).shape == (0, 8)
