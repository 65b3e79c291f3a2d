"""`python -m sglang_ic.search` on a real engine, with a tiny random model.

Its loss hardly depends on the pattern, so what a search finds here is no matter; that passes which
begin in the middle compute what whole ones do, and that a killed search ends as another one does,
is.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from _environments import fork
from _server import two_processors

from sglang_ic.demo.tiny import write_checkpoint
from sglang_ic.pattern import LayerPattern

pytestmark = pytest.mark.engine

INDEX_TOPK, LENGTH, CHUNK = 32, 320, 128
BUILD_ALL = {"index_cache_pattern": "full", "index_cache_build": "all"}
BASES = ["FFFFFFFF", "FFSFSSFF", "FSSFFSSS"]
NO_INDEXER = (2, 3, 5)
OWN = "FFSSFSFF"  # the pattern of a checkpoint without indexers on these
MAX_RELATIVE_GAP = 1e-6


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("search"), index_topk=INDEX_TOPK))


@pytest.fixture(scope="module")
def trained_model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("trained")
    return str(write_checkpoint(folder, index_topk=INDEX_TOPK, drop_indexer_layers=NO_INDEXER))


@pytest.fixture(scope="module")
def jobs(model, trained_model):
    """All jobs at once: each waits for a model to load."""
    common = {"length": LENGTH, "chunk_size": CHUNK}
    passes = "_search_jobs:passes_from_any_layer"
    patterns = ["FFFFFFFF", "FFFSFFFF", "FFFFFFSF", "FFFSFFFF", "FFFSFFSF", "FSFSFFFF"]
    return {
        "all": fork().submit(passes, model=model, override=BUILD_ALL, bases=BASES, **common),
        "trained": fork().submit(
            passes,
            model=trained_model,
            override={"index_cache_pattern": OWN},
            bases=[OWN, "FSSSFSFF"],
            **common,
        ),
        "worker": fork().submit(
            "_search_jobs:worker_losses",
            model=model,
            override=BUILD_ALL,
            lengths=[300, 320],
            patterns=patterns,
        ),
    }


@pytest.fixture(scope="module")
def found(jobs):
    """Results by job."""
    return {name: job.result() for name, job in jobs.items()}


@pytest.mark.parametrize("build", ["all", "trained"])
def test_a_resumed_pass_equals_the_whole_one_bit_for_bit(found, build):
    whole, resumed = found[build]["whole"], found[build]["resumed"]
    assert len(whole) == len(resumed) >= 14
    assert resumed == whole


def test_a_resumed_pass_begins_at_the_converted_layer(found):
    for (_, layer, _), begun in found["all"]["begun"].items():
        assert begun == layer


def test_our_pass_has_the_engines_loss_under_every_pattern(found):
    engine, by_hand = found["all"]["engine"], found["all"]["by_hand"]
    assert list(engine) == BASES
    assert by_hand == pytest.approx(engine, rel=MAX_RELATIVE_GAP)
    losses = sorted(engine.values())
    gap = min(high - low for low, high in zip(losses, losses[1:], strict=False))
    assert gap > 100 * MAX_RELATIVE_GAP * losses[0]  # a pattern that is not applied shows


def test_converted_layers_change_the_loss(found):
    for build in ("all", "trained"):
        for (base, _, chunked), loss in found[build]["whole"].items():
            assert chunked or loss != found[build]["by_hand"][base]


def test_watched_selections_are_the_engines(found):
    assert found["all"]["topk"].equal(found["all"]["recorded"])


def test_passes_leave_no_token_behind(found):
    assert found["all"]["free_tokens"] == found["all"]["all_tokens"]


def test_memory_changes_the_work_and_not_the_losses(found):
    losses, work = found["worker"]["losses"], found["worker"]["layer_tokens"]
    assert list(losses) == [7, 3, 0]
    assert losses[7] == losses[3] == losses[0]
    assert work[7] < work[3] < work[0] == 6 * 8 * 620


def test_a_sequence_without_room_is_refused_with_the_flag(found):
    assert "-- --max-total-tokens" in found["worker"]["refused"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    words = "river stone light green house old tree moon seven quiet birds walk".split()
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    texts = [
        " ".join(words[(i * i + i * number) % len(words)] for i in range(200))[:300]
        for number in range(1, 7)
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def start(*argv: str, **variables: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", **variables}
    return subprocess.Popen(
        [sys.executable, "-m", "sglang_ic.search", *argv],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen) -> str:
    try:
        out, err = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, err[-3000:]
    return out


@pytest.fixture(scope="module")
def arguments(model, data):
    common = ["--model-path", model, "--data", data, "--context-lengths", str(8 * INDEX_TOPK)]
    return [*common, "--full-layers", "3", "--control", "uniform", "--swaps", "1"]


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory):
    """(folder, output) of a search that ran to its end."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, finish(start(*arguments, "--output", str(folder)))


def document(folder) -> dict:
    return json.loads((folder / "pattern.json").read_text())


def test_a_search_writes_patterns_that_the_server_takes(finished):
    folder, out = finished
    found = document(folder)
    assert found["complete"] and list(found["patterns"]) == ["8", "7", "6", "5", "4", "3"]
    for count in range(3, 9):
        assert LayerPattern.parse(f"{folder}/pattern.json@{count}", 8).num_full == count
    assert found["patterns"]["3"] in out
    assert {path.name for path in folder.iterdir()} == {
        "pattern.json",
        "report.md",
        "journal.jsonl",
        "engine.log",
        "loss.png",
        "order.png",
        "overlap.png",
    }


def test_the_count_of_work_is_the_sum_of_the_passes(finished):
    folder, _ = finished
    lines = (folder / "journal.jsonl").read_text().splitlines()[1:]
    total = sum(json.loads(line)["layer_tokens"] for line in lines)
    assert document(folder)["layer_token_forwards_total"] == total
    assert document(folder)["layer_token_forwards"] < total


def test_killed_and_resumed_it_finds_the_same(finished, arguments, tmp_path):
    process = start(*arguments, "--output", str(tmp_path))
    journal = tmp_path / "journal.jsonl"
    deadline = time.monotonic() + 500
    while not journal.exists() or journal.read_text().count("\n") < 25:
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    lines = journal.read_text().count("\n")
    assert lines < (finished[0] / "journal.jsonl").read_text().count("\n")
    finish(start(*arguments, "--output", str(tmp_path), "--resume"))
    resumed, whole = document(tmp_path), document(finished[0])
    for key in ("patterns", "loss", "loss_stderr", "increase", "order", "swaps", "controls"):
        assert resumed[key] == whole[key]
    assert resumed["settings"]["resumed"]


def test_two_tensor_parallel_ranks_find_what_one_finds(finished, arguments, tmp_path):
    """Each rank keeps states of its own; sums in another order flip a near-tie of a selection."""
    words = ["--output", str(tmp_path), "--", "--tp", "2"]
    finish(start(*arguments, *words, SGLANG_CPU_OMP_THREADS_BIND=two_processors()))
    found, alone = document(tmp_path), document(finished[0])
    for key in ("patterns", "order"):
        assert found[key] == alone[key]
    assert found["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    assert found["loss"] != alone["loss"]  # bit for bit: as many ranks as before


def test_a_dry_run_prints_the_plan_and_writes_nothing(trained_model, data, tmp_path):
    common = ["--model-path", trained_model, "--data", data, "--context-lengths", "256"]
    process = start(*common, "--full-layers", "2", "--dry-run", "--output", str(tmp_path / "out"))
    out = finish(process)
    assert "5 -> 2 Full layers, 3 steps, 9 candidates" in out
    assert "layer-token-forwards" in out and "GiB per rank" in out
    assert not (tmp_path / "out").exists()
