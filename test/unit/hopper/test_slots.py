"""The slot lookup against the reference, in Triton's interpreter."""

import pytest
import torch

from sglang_ic.hopper import reference


@pytest.mark.parametrize("topk", [1, 5, 1024, 2048])
def test_positions_become_slots(interpreted, topk):
    page_table = torch.randperm(3 * 3000).view(3, 3000).to(torch.int32)
    requests = torch.tensor([2, 0, 1, 1], dtype=torch.int32)
    positions = torch.randint(-1, 3000, (4, topk), dtype=torch.int32)
    expected = reference.to_slots(positions, page_table, requests)
    assert torch.equal(interpreted("to_slots_", positions, page_table, requests), expected)


def test_a_page_table_wider_than_its_view(interpreted):
    page_table = torch.randperm(2 * 64).view(2, 64).to(torch.int32)[:, :50]
    requests = torch.tensor([1], dtype=torch.int32)
    positions = torch.tensor([[49, -1, 0]], dtype=torch.int32)
    expected = reference.to_slots(positions, page_table, requests)
    assert torch.equal(interpreted("to_slots_", positions, page_table, requests), expected)


def test_no_rows(interpreted):
    empty = torch.empty(0, dtype=torch.int32)
    positions = torch.empty(0, 8, dtype=torch.int32)
    assert interpreted("to_slots_", positions, torch.zeros(1, 4).int(), empty).shape == (0, 8)
