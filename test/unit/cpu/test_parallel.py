"""Row blocks over threads."""

import threading

import pytest
import torch

from sglang_ic.cpu.parallel import for_each_block


@pytest.fixture(params=[1, 2, 3])
def num_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("num_blocks", [0, 1, 2, 57])
def test_every_block_runs_once(num_threads, num_blocks):
    seen, lock = [], threading.Lock()

    def work(begin, end):
        with lock:
            seen.append((begin, end))

    blocks = [(i, i + 1) for i in range(num_blocks)]
    for_each_block(work, blocks)
    assert sorted(seen) == blocks
    assert torch.get_num_threads() == num_threads


def test_blocks_run_in_the_callers_autograd_mode(num_threads):
    with torch.inference_mode():
        out = torch.zeros(40)

        def work(begin, end):
            assert torch.is_inference_mode_enabled()
            out[begin:end] += 1

        for_each_block(work, [(i, i + 1) for i in range(40)])
    assert out.sum() == 40


def test_an_error_in_a_block_is_raised_and_the_threads_are_given_back(num_threads):
    def work(begin, end):
        if begin == 30:
            raise ValueError("block 30")

    with pytest.raises(ValueError, match="block 30"):
        for_each_block(work, [(i, i + 1) for i in range(40)])
    assert torch.get_num_threads() == num_threads
