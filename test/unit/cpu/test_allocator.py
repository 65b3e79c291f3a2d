"""SGLang's paged allocator on CPU, which we lean on unchanged, against a brute-force model."""

import random
from types import SimpleNamespace

import pytest
import torch

paged = pytest.importorskip("sglang.srt.mem_cache.allocator.paged", exc_type=ImportError)

PAGE, NUM_PAGES = 64, 12


def make_allocator():
    allocator = paged.PagedTokenToKVPoolAllocator(
        size=PAGE * NUM_PAGES,
        page_size=PAGE,
        dtype=torch.float32,
        device="cpu",
        kvcache=SimpleNamespace(),
        need_sort=False,
    )
    assert not allocator.use_triton_kernels, (
        "on CPU the allocator must take its torch path; if not, attach one in sglang_ic.cpu"
    )
    return allocator


def extend(allocator, held, lens):
    """Grow requests `held` (lists of slots) to `lens`; returns their new slots, or None if full."""
    before = torch.tensor([len(slots) for slots in held])
    after = torch.tensor(lens)
    last = torch.tensor([slots[-1] if slots else -1 for slots in held])
    total = int((after - before).sum())
    found = allocator.alloc_extend(before, before.clone(), after, after.clone(), last, total)
    return None if found is None else found.split((after - before).tolist())


def decode(allocator, held):
    lens = torch.tensor([len(slots) + 1 for slots in held])
    last = torch.tensor([slots[-1] for slots in held])
    return allocator.alloc_decode(lens, lens.clone(), last)


def check(held):
    """Slots are unique, never on page 0, and page p of a request is one whole physical page."""
    owner = {}
    for request, slots in enumerate(held):
        for position, slot in enumerate(slots):
            page, offset = divmod(slot, PAGE)
            assert 1 <= page <= NUM_PAGES and offset == position % PAGE
            assert owner.setdefault(page, (request, position // PAGE)) == (
                request,
                position // PAGE,
            )


def pages(held):
    return sum(-(-len(slots) // PAGE) for slots in held)


@pytest.mark.parametrize("seed", range(20))
def test_random_extends_decodes_and_frees(seed):
    rng = random.Random(seed)
    allocator, held = make_allocator(), []
    for _ in range(60):
        step = rng.choice(["new", "extend", "decode", "free"])
        if step == "free" and held:
            slots = held.pop(rng.randrange(len(held)))
            allocator.free(torch.tensor(slots))
        elif step == "decode" and held:
            new = decode(allocator, held)
            if pages([slots + [0] for slots in held]) > NUM_PAGES:
                assert new is None
            else:
                held = [slots + [slot] for slots, slot in zip(held, new.tolist(), strict=True)]
        elif step in ("new", "extend"):
            chosen = [] if step == "new" else rng.sample(held, min(len(held), 2))
            chosen = chosen or [[]]
            lens = [len(slots) + rng.randint(1, 150) for slots in chosen]
            others = [slots for slots in held if not any(slots is one for one in chosen)]
            parts = extend(allocator, chosen, lens)
            if pages(others) + sum(-(-n // PAGE) for n in lens) > NUM_PAGES:
                assert parts is None
            else:
                grown = [one + part.tolist() for one, part in zip(chosen, parts, strict=True)]
                held = others + grown
        check(held)
        assert allocator.available_size() == (NUM_PAGES - pages(held)) * PAGE
