"""Metrics against values worked out by hand."""

import pytest

from sglang_ic.bench.metrics import distribution, summarize


def test_a_failed_request_is_counted_by_kind_and_in_no_average(request_of, block_of):
    requests = [
        request_of(0, ttft=0.1, itl=(0.02,)),
        request_of(1, ttft=0.3, itl=(0.04,)),
        request_of(2, error="short answer", ttft=9.0, error_text="cut"),
        request_of(3, error="short answer", ttft=9.0, error_text="cut"),
        request_of(4, error="no token", ttft=9.0),
    ]
    told = summarize([block_of(requests)], {})
    assert (told["num_sent"], told["num_ok"]) == (5, 2)
    assert told["errors"] == {
        "short answer": {"num": 2, "examples": ["cut"]},
        "no token": {"num": 1, "examples": []},
    }
    assert told["ttft_ms"]["mean"] == pytest.approx(200)
    assert told["ttft_ms"]["max"] == pytest.approx(300)
    assert told["itl_ms"]["num"] == 2


def test_mean_itl_is_over_tokens_and_itl_over_single_gaps(request_of, block_of):
    # Two pieces after the first, of 5 tokens in all: 0.5 s over 5 steps, not over 2 gaps.
    chat = request_of(0, itl=(0.2, 0.3), output_tokens=6)
    told = summarize([block_of([chat, request_of(1, itl=(0.3, 0.3))])], {})
    assert told["mean_itl_ms"]["min"] == pytest.approx(100)
    assert told["mean_itl_ms"]["max"] == pytest.approx(300)
    assert told["itl_ms"]["mean"] == pytest.approx(275)


def test_rates_are_over_the_windows_of_all_blocks(request_of, block_of):
    first = block_of([request_of(0, ttft=1.0, itl=(0.5, 0.5))])  # 2 s, 3 tokens
    second = block_of([request_of(0, ttft=2.0, itl=(1.0, 1.0))], round=1)  # 4 s, 3 tokens
    told = summarize([first, second], {})
    assert told["window_sec"] == pytest.approx(6)
    assert told["output_tokens_per_sec"] == pytest.approx(1)
    assert told["input_tokens_per_sec"] == pytest.approx(200 / 6)
    assert told["requests_per_sec"] == pytest.approx(2 / 6)


def test_goodput_counts_failed_requests_as_sent_and_not_met(request_of, block_of):
    requests = [
        request_of(0, ttft=0.1, itl=(0.02,)),
        request_of(1, ttft=0.9, itl=(0.02,)),
        request_of(2, ttft=0.1, itl=(0.9,)),
        request_of(3, error="no token"),
    ]
    told = summarize([block_of(requests)], {"ttft_ms": 500.0, "itl_ms": 100.0})["goodput"]
    assert (told["num_met"], told["share"]) == (1, 0.25)
    assert summarize([block_of(requests)], {})["goodput"] is None


def test_cache_hits_and_skipped_indexers(request_of, block_of):
    requests = [request_of(0, cached_tokens=50), request_of(1, cached_tokens=100)]
    told = summarize([block_of(requests, indexer=(4, 12)), block_of(requests, indexer=(6, 18))], {})
    assert told["cache_hit_rate"] == pytest.approx(0.75)
    assert told["indexer"] == {"num_run": 10, "num_skipped": 30, "skipped_share": 0.75}
    untold = summarize([block_of(requests, indexer=(4, 12)), block_of(requests)], {})
    assert untold["indexer"] is None


def test_nothing_is_none_and_not_zero(request_of, block_of):
    told = summarize([block_of([request_of(0, error="no token")])], {})
    assert told["ttft_ms"] is None and told["cache_hit_rate"] is None
    assert distribution([]) is None


def test_percentiles():
    told = distribution(list(range(1, 101)))
    assert (told["p50"], told["p99"], told["max"]) == pytest.approx((50.5, 99.01, 100))


def test_a_first_piece_of_several_tokens_is_told(request_of, block_of):
    requests = [request_of(0, first_tokens=1), request_of(1, first_tokens=3), request_of(2)]
    assert summarize([block_of(requests)], {})["num_late_first_tokens"] == 1
