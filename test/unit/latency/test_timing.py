"""Inter-token latency from arrival times that were made by hand."""

import pytest

from sglang_ic.latency.timing import Stream, TimingError, inter_token


def stream(first_sec: float, step_sec: float, num: int, sent_sec: float = 0.0) -> Stream:
    arrivals = tuple((first_sec + step_sec * i, i + 1) for i in range(num))
    return Stream(sent_sec, arrivals, cached_tokens=0, last_ids=())


def test_ttft_is_from_sending_to_the_first_token():
    assert stream(3.5, 0.1, 2, sent_sec=1.0).ttft_sec == 2.5


def test_one_stream_gives_its_mean_without_the_first_four():
    slow_start = tuple((0.5 * i, i + 1) for i in range(5))  # tokens 1 to 5, half a second apart
    rest = tuple((2.0 + 0.01 * i, i + 5) for i in range(1, 21))
    milliseconds, steps = inter_token([Stream(0.0, slow_start + rest, 0, ())])
    assert milliseconds == pytest.approx(10.0)
    assert steps == 20


def test_a_chunk_of_several_tokens_counts_them_all():
    arrivals = tuple((0.1 * i, 2 * i + 1) for i in range(11))
    milliseconds, steps = inter_token([Stream(0.0, arrivals, 0, ())])
    assert (milliseconds, steps) == (pytest.approx(50.0), 12)


def test_only_the_time_in_which_all_decode_counts():
    # Until 1.0 s the first stream decodes alone and fast; afterwards both take 20 ms.
    alone = tuple((0.01 * i, i + 1) for i in range(100))
    both = tuple((1.0 + 0.02 * i, i + 101) for i in range(50))
    late = stream(1.0, 0.02, 40)
    milliseconds, steps = inter_token([Stream(0.0, alone + both, 0, ()), late])
    assert milliseconds == pytest.approx(20.0)
    assert steps == 35  # 40 arrivals inside, 4 left out, the last one closes


def test_the_time_after_the_first_end_counts_for_no_stream():
    short = stream(0.0, 0.02, 30)
    alone = tuple((0.6 + 0.001 * i, i + 31) for i in range(100))
    longer = Stream(0.0, stream(0.0, 0.02, 30).arrivals + alone, 0, ())
    assert inter_token([longer, short])[0] == pytest.approx(20.0)


def test_streams_that_hardly_overlap_are_refused():
    with pytest.raises(TimingError, match="raise new_tokens"):
        inter_token([stream(0.0, 0.1, 20), stream(1.5, 0.1, 20)])


def test_the_result_of_a_batch_is_the_median_stream():
    batch = [stream(0.0, step, 100) for step in (0.010, 0.011, 0.030)]
    assert inter_token(batch)[0] == pytest.approx(11.0)
