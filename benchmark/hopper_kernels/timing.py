"""Rows of the table, each measured by CUDA events, until a deadline."""

import statistics
import sys
import time
from collections.abc import Callable

import torch

REPEATS = 40  # calls in a graph
FP8_TFLOPS, BF16_TFLOPS = 1979, 989  # dense, H200 datasheet


class Bench:
    """Rows of the table, measured until the deadline."""

    def __init__(self, deadline: float, bandwidth_tb_s: float):
        self.deadline = deadline
        self.bandwidth = bandwidth_tb_s * 1e12
        self.rows: list[dict] = []

    def time(
        self,
        case: str,
        name: str,
        run: Callable,
        gbytes=0.0,
        tflop=0.0,
        peak=FP8_TFLOPS,
        num_calls=1,
    ):
        """Measure `run()`, which is `num_calls` alike; returns what it returned, or None."""
        row = {"case": case, "name": name, "median_ms": None, "gbytes": gbytes, "tflop": tflop}
        self.rows.append(row)
        if time.monotonic() > self.deadline:
            row["skipped"] = "past the deadline"
            return None
        try:
            result = run()
            torch.cuda.synchronize()
            times = sorted(self._once(run) / num_calls for _ in range(9))
        except Exception as error:  # one step that fails must not cost the lease its other numbers
            row["skipped"] = " ".join(f"{type(error).__name__}: {error}".split())
            print(self.line(row), file=sys.stderr, flush=True)
            return None
        floor = max(gbytes * 1e9 / self.bandwidth, tflop / peak) * 1e3
        row.update(
            median_ms=statistics.median(times), min_ms=times[0], max_ms=times[-1], floor_ms=floor
        )
        print(self.line(row), file=sys.stderr, flush=True)
        return result

    def time_in_graph(self, case: str, name: str, run: Callable, gbytes=0.0) -> None:
        """As `time`, of one call among REPEATS in a CUDA graph, with launches as they are there."""
        graphs: list[torch.cuda.CUDAGraph] = []

        def replay():
            if not graphs:  # here, so that what fails and what is too late ends as in `time`
                graphs.append(captured(run))
            graphs[0].replay()

        self.time(case, name, replay, gbytes, num_calls=REPEATS)

    @staticmethod
    def _once(run) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    @staticmethod
    def line(row: dict) -> str:
        if row["median_ms"] is None:
            return f"{row['case']:<22} {row['name']:<34} {row['skipped'][:60]}"
        rate = ""
        if row["tflop"]:
            rate = f"{row['tflop'] / row['median_ms'] * 1e3:6.0f} TFLOP/s"
        elif row["gbytes"]:
            rate = f"{row['gbytes'] / row['median_ms']:6.2f} TB/s"
        return (
            f"{row['case']:<22} {row['name']:<34} {row['median_ms']:8.4f} ms "
            f"({row['min_ms']:.4f}-{row['max_ms']:.4f})  floor {row['floor_ms']:6.3f}  {rate}"
        )


def captured(run: Callable) -> torch.cuda.CUDAGraph:
    """A graph of REPEATS calls, one after the other."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()  # compiles, and takes what it keeps
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(REPEATS):
                run()
    torch.cuda.synchronize()
    return graph


def copy_bandwidth(device) -> float:
    """TB/s of a large copy, bytes read and written."""
    source = torch.randint(0, 100, (1 << 30,), dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    times = [Bench._once(lambda: target.copy_(source)) for _ in range(6)]
    return 2 * source.nbytes / statistics.median(times[1:]) / 1e9
