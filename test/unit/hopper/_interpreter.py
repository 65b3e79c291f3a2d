"""Runs the kernels of `sglang_ic.hopper` in Triton's interpreter, on CPU; started by conftest.py.

The interpreter has to be chosen before triton is imported, hence a process of its own. It does not
know Gluon: for `keep` stands what it computes, in torch; test/gpu compares the two. Reads
(function name, arguments, keywords) from stdin and writes (result, error) to stdout, as bytes of
torch.save in a pickle: pickle alone does not know float8.
"""

import io
import pickle
import sys
import traceback

import torch

from sglang_ic.hopper import attention, decode_attention, fused, reference
from sglang_ic.hopper.fused import choose, score_and_select
from sglang_ic.hopper.pages import count_selected, look_up_
from sglang_ic.hopper.sampling import gather_samples, sample_bounds
from sglang_ic.hopper.scoring import score
from sglang_ic.hopper.slots import to_slots_


def keep(q, k, k_scale, weights, starts, ends, bounds, sizes):
    tile = {"block_q": sizes.block_q, "lanes": sizes.lanes}
    scores = score(q, k, k_scale, weights, starts, ends, block_q=sizes.block_q, block_k=sizes.lanes)
    return reference.keep(scores, starts, ends, bounds, **tile, levels=sizes.levels)


def attend_in_splits(*args):
    """In float32: the interpreter multiplies bfloat16 as the integers that hold it."""
    attention.takes = lambda *_: True
    return decode_attention.attend(*args)


fused.keep = keep
FUNCTIONS = {
    function.__name__: function
    for function in (attend_in_splits, choose, count_selected, gather_samples, keep, look_up_)
    + (sample_bounds, score, score_and_select, to_slots_)
}

while True:
    try:
        message = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    name, args, kwargs = torch.load(io.BytesIO(message), weights_only=False)
    try:
        answer = (FUNCTIONS[name](*args, **kwargs), None)
    except Exception:
        answer = (None, traceback.format_exc())
    torch.save(answer, saved := io.BytesIO())
    pickle.dump(saved.getvalue(), sys.stdout.buffer)
    sys.stdout.buffer.flush()
