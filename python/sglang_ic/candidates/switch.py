"""Whether a pattern may have candidate layers (C), and how many pages of keys these score.

C changes answers: what is not among the candidates is never looked at. So it takes more than a
letter in a pattern: without the environment variable every tool refuses it. No torch, no sglang.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from sglang_ic.pattern_text import PatternError, show

CANDIDATE_PAGES = "SGLANG_IC_APPROXIMATE_CANDIDATE_PAGES"

PAGE_TOKENS = 64  # keys of a page: upstream's index-K pages
GROUP_ROWS = 512  # neighbouring query tokens that share their candidates; a multiple of a page
LAST_PAGES = 16  # always candidates, the pages of the group itself among them


def fewest_pages(index_topk: int) -> int:
    """The smallest number of pages that may be asked for.

    Enough for the pages that are always candidates, and for `index_topk` keys before the first row
    of a group, so that no row selects fewer tokens than a Full layer would.
    """
    return max(1 + LAST_PAGES, -(-index_topk // PAGE_TOKENS) + GROUP_ROWS // PAGE_TOKENS)


def require_switch(pattern: str, environment: Mapping[str, str] | None = None) -> None:
    """Refuse a pattern with candidate layers unless the environment says that it may have some.

    Raises:
        PatternError: it has some, and the variable is unset or no whole number.
    """
    if "C" in pattern:
        _read(pattern, environment)


def candidate_pages(
    pattern: str, index_topk: int, environment: Mapping[str, str] | None = None
) -> int | None:
    """Pages that the candidate layers of `pattern` score; None when it has none.

    Raises:
        PatternError: it has some, and the variable is unset, no whole number, or too small.
    """
    if "C" not in pattern:
        return None
    pages = _read(pattern, environment)
    if pages < fewest_pages(index_topk):
        raise PatternError(
            f"{CANDIDATE_PAGES}={pages} is too small for index_topk {index_topk}: "
            f"give {fewest_pages(index_topk)} or more pages of {PAGE_TOKENS} tokens"
        )
    return pages


def setting(environment: Mapping[str, str] | None = None) -> str:
    """What the variable says, as it was typed; empty: no candidate layers."""
    return (os.environ if environment is None else environment).get(CANDIDATE_PAGES, "").strip()


def _read(pattern: str, environment: Mapping[str, str] | None) -> int:
    given = setting(environment)
    if not given:
        raise PatternError(
            f"pattern {show(pattern)} has C (candidate) layers, whose results are approximate: set "
            f"{CANDIDATE_PAGES} to the pages of {PAGE_TOKENS} tokens that they score, or use F"
        )
    if not re.fullmatch(r"[0-9]{1,6}", given):
        raise PatternError(
            f"{CANDIDATE_PAGES}={show(given)} is not a whole number: give the pages of "
            f"{PAGE_TOKENS} tokens that candidate layers score"
        )
    return int(given)
