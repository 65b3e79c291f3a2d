"""How much of the indexer's time a pattern saves on CPU: prefill ratios, all arms in one run.

    make bench-cpu
    make bench-cpu ARGS="--tokens 4000 --rounds 5"

One engine, built with indexers on every layer, takes all patterns; an optional second engine
(`--baseline-plugin MODULE:FUNCTION`, with the folder that holds it) runs all-Full on unpatched
SGLang with another CPU path. Arms are interleaved, forward and backward in turn. A linear fit of
time over the Full count, at least three of them, tells what no indexer at all would take. Times are
wall clock of one prefill in process, no scheduler; on a shared machine only ratios mean something.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
SCHEMA_VERSION = 1
# By Full count, for the bundled model's 16 layers; 4 is its default pattern.
PATTERNS = {
    16: "full",
    8: "freq:2,offset:1",
    4: "FSFSSSSFSSSSSFSS",
    2: "freq:8,offset:1",
    1: "freq:16,offset:1",
}


class Engine:
    """A worker process (this file with --worker) that prefills when told to."""

    def __init__(self, python: str, plugin: str, model: Path, override: dict, path: list[Path]):
        environment = {
            **os.environ,
            "SGLANG_USE_CPU_ENGINE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, path)),
        }
        self.process = subprocess.Popen(
            [
                python,
                "-W",
                "ignore",
                __file__,
                "--worker",
                plugin,
                str(model),
                json.dumps(override),
            ],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self._read()

    def prefill(self, pattern: str | None, tokens: int) -> float:
        """Seconds of one prefill of `tokens` tokens with an empty cache."""
        print(
            json.dumps({"pattern": pattern, "tokens": tokens}), file=self.process.stdin, flush=True
        )
        return self._read()["seconds"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)

    def _read(self) -> dict:
        # SGLang prints to stdout while it starts; ours are the lines behind the mark.
        for line in self.process.stdout:
            if line.startswith("@@"):
                return json.loads(line[2:])
        raise RuntimeError(f"the engine ended with code {self.process.wait()}")


def worker(plugin: str, model: str, override: str) -> None:
    """Load the model once, then answer one line of stdin with one line of stdout."""
    import importlib
    import time

    import torch
    from _runner import make_runner

    import sglang_ic.cpu.plugin

    module, function = plugin.split(":")
    sglang_ic.cpu.plugin.register = getattr(importlib.import_module(module), function)
    if module == "sglang_ic.cpu.plugin":
        import sglang_ic.plugin

        sglang_ic.plugin.register()
    runner = make_runner(model, json_model_override_args=override)
    from importlib.metadata import version

    facts = {name: version(name) for name in ("sglang", "torch", "transformers")}
    print("@@" + json.dumps({**facts, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["pattern"] is not None:
            roles = runner.model_runner.model.model.index_cache_roles
            roles.set_pattern(roles.parse(asked["pattern"]))
        ids = [3 + (7919 * i + i // 7) % 250 for i in range(asked["tokens"])]
        begin = time.perf_counter()
        runner.prefill(ids)
        print("@@" + json.dumps({"seconds": time.perf_counter() - begin}), flush=True)


def summarize(seconds: dict[str, list[float]], counts: list[int]) -> dict:
    """Medians, spread and ratios of interleaved arms.

    Args:
        seconds: times by arm name; `full_<count>` for each of `counts`, and maybe `baseline`.
    """
    medians = {arm: float(np.median(times)) for arm, times in seconds.items()}
    fit = stats.linregress(counts, [medians[f"full_{count}"] for count in counts])
    residual = [medians[f"full_{c}"] - (fit.intercept + fit.slope * c) for c in counts]
    most = medians[f"full_{max(counts)}"]
    result = {
        "median_sec": medians,
        "min_sec": {arm: min(times) for arm, times in seconds.items()},
        "max_sec": {arm: max(times) for arm, times in seconds.items()},
        "speedup": {f"full_{c}": most / medians[f"full_{c}"] for c in counts},
        "no_indexer_sec": float(fit.intercept),
        "no_indexer_speedup": float(most / fit.intercept),
        "fit_residual_sec": residual,
        "fit_r_squared": float(fit.rvalue**2),
    }
    if 4 in counts:
        result["share_of_no_indexer_speedup_at_4_full"] = float(
            result["speedup"]["full_4"] / result["no_indexer_speedup"]
        )
    if "baseline" in medians:
        result["baseline_over_full"] = medians["baseline"] / most
    return result


def markdown(document: dict) -> str:
    """The report as a page."""
    result, settings = document["result"], document["settings"]
    lines = [
        "# Prefill on CPU by Full count",
        "",
        f"{settings['tokens']} tokens, {settings['rounds']} interleaved rounds, one run. "
        f"{document['hardware']}, {document['software']['threads']} threads, "
        + ", ".join(f"{k} {v}" for k, v in document["software"].items() if k != "threads")
        + ". The machine is shared, so read the ratios, not the seconds.",
        "",
        f"`{document['command']}`",
        "",
        "| arm | median s | min s | max s | speed-up over all Full |",
        "|---|---|---|---|---|",
    ]
    for arm in result["median_sec"]:
        speedup = result["speedup"].get(arm)
        lines.append(
            f"| {arm} | {result['median_sec'][arm]:.2f} | {result['min_sec'][arm]:.2f} "
            f"| {result['max_sec'][arm]:.2f} | {f'{speedup:.2f}' if speedup else ''} |"
        )
    lines += [
        f"| no indexer (linear fit, r2 {result['fit_r_squared']:.4f}) "
        f"| {result['no_indexer_sec']:.2f} | | | {result['no_indexer_speedup']:.2f} |",
        "",
    ]
    if "share_of_no_indexer_speedup_at_4_full" in result:
        share = result["share_of_no_indexer_speedup_at_4_full"]
        lines.append(f"4 Full of 16 give {share:.0%} of the speed-up of no indexer at all.")
    if "baseline_over_full" in result:
        lines.append(
            f"The baseline's all-Full prefill takes {result['baseline_over_full']:.2f}x as long."
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model-path", type=Path, help="default: the bundled model")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full-counts", default="16,8,4,1", help="%(default)s")
    parser.add_argument("--baseline-plugin", metavar="MODULE:FUNCTION")
    parser.add_argument("--baseline-path", type=Path, help="folder that holds its module")
    parser.add_argument("--output", type=Path, help="write OUTPUT.json and OUTPUT.md")
    args = parser.parse_args()
    counts = [int(count) for count in args.full_counts.split(",")]
    if len(counts) < 3 or not set(counts) <= set(PATTERNS):
        parser.error(f"--full-counts {args.full_counts}: give at least three of {sorted(PATTERNS)}")

    from sglang_ic.demo import bundled_model

    model = args.model_path or bundled_model()
    shared = [ROOT / "test/engine", ROOT / "python"]
    override = {"index_cache_pattern": "full", "index_cache_build": "all"}
    fork = Engine(sys.executable, "sglang_ic.cpu.plugin:register", model, override, shared)
    arms = [(f"full_{count}", fork, PATTERNS[count]) for count in counts]
    engines = [fork]
    if args.baseline_plugin:
        stock = str(ROOT / ".venv-stock/bin/python")
        path = [args.baseline_path, ROOT / "test/standins", *shared]
        baseline = Engine(stock, args.baseline_plugin, model, {}, path)
        engines.append(baseline)
        arms.append(("baseline", baseline, None))
    seconds: dict[str, list[float]] = {name: [] for name, *_ in arms}
    for name, engine, pattern in arms:
        engine.prefill(pattern, args.tokens)  # warm
        print(f"warmed {name}", file=sys.stderr)
    for number in range(args.rounds):
        for name, engine, pattern in arms if number % 2 == 0 else arms[::-1]:
            seconds[name].append(engine.prefill(pattern, args.tokens))
        done = ", ".join(f"{name} {times[-1]:.2f} s" for name, times in seconds.items())
        print(f"round {number + 1} of {args.rounds}: {done}", file=sys.stderr)
    for engine in engines:
        engine.close()
    document = {
        "schema_version": SCHEMA_VERSION,
        "command": "python benchmark/cpu_prefill.py "
        + shlex.join(
            Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]
        ),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
        "software": fork.facts,
        "settings": {"tokens": args.tokens, "rounds": args.rounds, "full_counts": counts},
        "seconds": seconds,
        "result": summarize(seconds, counts),
    }
    if args.output:
        args.output.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
        args.output.with_suffix(".md").write_text(markdown(document))
    print(markdown(document))
    print(json.dumps(document))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        main()
