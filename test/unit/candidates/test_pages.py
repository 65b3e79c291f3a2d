"""The rule of candidate pages against a reading of it row by row, on drawn selections."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from sglang_ic.candidates import pages
from sglang_ic.candidates.switch import GROUP_ROWS, LAST_PAGES, PAGE_TOKENS

K = 8


@st.composite
def passes(draw):
    """(selected [T, K], first_position, num_pages): rows of one request, and their selection."""
    first = draw(st.integers(0, 6000))
    rows = draw(st.integers(1, 1400))
    num_pages = draw(st.integers(1 + LAST_PAGES, 60))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    position = torch.arange(first, first + rows).unsqueeze(1)
    drawn = torch.rand(rows, K, generator=generator)
    if draw(st.booleans()):
        drawn = drawn**6  # most of it in few pages
    selected = (drawn * (position + 1)).long().clamp(max=position)
    unused = torch.rand(rows, K, generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return selected.masked_fill(unused, -1).int(), first, num_pages


def lists_of(case):
    selected, first, num_pages = case
    counts = pages.count_selected(selected, first)
    return pages.choose_pages(counts, first, len(selected), num_pages)


def by_definition(case):
    """Lists as the rule is written: the pages that are always in, then the most selected ones."""
    selected, first, num_pages = case
    found = []
    for begin, end in pages.row_groups(first, len(selected)):
        visible = (first + end - 1) // PAGE_TOKENS + 1
        votes = [0] * visible
        for at in selected[begin:end].flatten().tolist():
            if at >= 0:
                votes[at // PAGE_TOKENS] += 1
        always = {0, *range(max(visible - LAST_PAGES, 0), visible)}
        others = sorted(set(range(visible)) - always, key=lambda page: (-votes[page], page))
        found.append(sorted([*always, *others[: max(num_pages - len(always), 0)]]))
    return found


@given(passes())
def test_lists_are_those_of_the_definition(case):
    selected, first, num_pages = case
    lists = lists_of(case)
    total = (first + len(selected) - 1) // PAGE_TOKENS + 1
    assert lists.shape == (len(pages.row_groups(first, len(selected))), min(num_pages, total))
    for listed, expected in zip(lists.tolist(), by_definition(case), strict=True):
        assert listed == sorted(set(listed))  # ascending, no page twice
        assert listed[: len(expected)] == expected
        assert all(page > expected[-1] for page in listed[len(expected) :])


@given(passes())
def test_a_row_sees_the_candidates_up_to_itself_and_no_key_behind(case):
    selected, first, num_pages = case
    lists = lists_of(case)
    windows = pages.windows(lists, first, len(selected))
    assert windows.dtype == torch.int32 and windows.shape == (len(selected),)
    lane = torch.arange(PAGE_TOKENS)
    for listed, (begin, end) in zip(lists, pages.row_groups(first, len(selected)), strict=True):
        tokens = (listed.unsqueeze(1) * PAGE_TOKENS + lane).flatten()
        for row in {begin, (begin + end) // 2, end - 1}:
            window = tokens[: windows[row]]
            assert window[-1] == first + row  # itself the last, so causal
            assert torch.equal(window, tokens[tokens <= first + row])


@given(passes())
def test_covered_rows_have_every_key_and_come_first(case):
    selected, first, num_pages = case
    covered = pages.num_covered(first, len(selected), num_pages)
    windows = pages.windows(lists_of(case), first, len(selected)).tolist()
    whole = [window == first + row + 1 for row, window in enumerate(windows)]
    assert all(whole[:covered])
    assert covered in {0, *(end for _, end in pages.row_groups(first, len(selected)))}
    if covered < len(selected):  # the next group sees more pages than a list holds
        _, end = next(span for span in pages.row_groups(first, len(selected)) if span[1] > covered)
        assert first + end > num_pages * PAGE_TOKENS


@given(passes(), st.integers(1, 512))
def test_every_row_that_is_not_covered_has_candidates_enough(case, index_topk):
    from sglang_ic.candidates.switch import fewest_pages

    selected, first, num_pages = case
    assume(num_pages >= fewest_pages(index_topk))
    covered = pages.num_covered(first, len(selected), num_pages)
    windows = pages.windows(lists_of(case), first, len(selected))
    assert (windows[covered:] >= index_topk).all()


@given(passes())
def test_groups_do_not_depend_on_the_chunk_they_come_in(case):
    selected, first, num_pages = case
    cuts = [begin for begin, _ in pages.row_groups(first, len(selected))][1:]
    assume(cuts)
    whole, cut = lists_of(case), cuts[len(cuts) // 2]
    counts = pages.count_selected(selected[:cut], first)
    head = pages.choose_pages(counts, first, cut, num_pages)
    counts = pages.count_selected(selected[cut:], first + cut)
    tail = pages.choose_pages(counts, first + cut, len(selected) - cut, num_pages)
    for index, listed in enumerate([*head, *tail]):
        seen = by_definition(case)[index]
        assert listed[: len(seen)].tolist() == seen == whole[index][: len(seen)].tolist()


def test_equal_counts_take_the_lower_page():
    first = 64 * PAGE_TOKENS
    nothing = torch.full((GROUP_ROWS, K), -1, dtype=torch.int32)
    listed = lists_of((nothing, first, 1 + LAST_PAGES + 3))[0].tolist()
    assert listed == [0, 1, 2, 3, *range(72 - LAST_PAGES, 72)]


def test_the_fullest_pages_are_taken_from_the_whole_group():
    first = 64 * PAGE_TOKENS
    selected = torch.full((GROUP_ROWS, K), -1, dtype=torch.int32)
    selected[0, :3] = 40 * PAGE_TOKENS  # three votes by one row
    selected[100:102, 0] = 30 * PAGE_TOKENS + 63  # two by two rows
    selected[511, 0] = 20 * PAGE_TOKENS
    listed = lists_of((selected, first, 1 + LAST_PAGES + 2))[0].tolist()
    assert listed == [0, 30, 40, *range(72 - LAST_PAGES, 72)]


@pytest.mark.parametrize(
    "first, rows", [(0, 1), (0, 512), (0, 513), (511, 2), (512, 512), (700, 9)]
)
def test_groups_are_cut_at_fixed_positions(first, rows):
    spans = pages.row_groups(first, rows)
    assert [row for begin, end in spans for row in range(begin, end)] == list(range(rows))
    number = [index for index, (begin, end) in enumerate(spans) for _ in range(begin, end)]
    assert pages.group_of_rows(first, rows, torch.device("cpu")).tolist() == number
    for begin, end in spans:
        assert (first + begin) // GROUP_ROWS == (first + end - 1) // GROUP_ROWS
        assert end == rows or (first + end) % GROUP_ROWS == 0


@given(passes())
def test_places_become_the_tokens_of_the_list(case):
    selected, first, _ = case
    lists = lists_of(case)
    groups = pages.group_of_rows(first, len(selected), torch.device("cpu"))
    width = lists.shape[1] * PAGE_TOKENS
    places = torch.randint(-1, width, (len(selected), K), dtype=torch.int32)
    found = pages.look_up(places, lists, groups)
    assert found.dtype == torch.int32
    tokens = (lists.unsqueeze(2) * PAGE_TOKENS + torch.arange(PAGE_TOKENS)).flatten(1)
    expected = tokens[groups].gather(1, places.clamp(min=0).long())
    assert torch.equal(found, torch.where(places < 0, -1, expected).int())


def test_a_group_spans_no_more_pages_than_are_always_in():
    assert GROUP_ROWS % PAGE_TOKENS == 0 and GROUP_ROWS // PAGE_TOKENS <= LAST_PAGES
