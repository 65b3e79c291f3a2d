"""`python -m sglang_ic.evaluate` on a real engine and a real server, with a tiny random model.

Its indexers know nothing of its attention, so a good pattern cannot be told from a bad one here;
but a pattern that is not applied, scores that are not the engine's, or a probe that looks at the
wrong rows can.
"""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from _environments import fork
from _server import running

from sglang_ic.demo.tiny import write_checkpoint

pytestmark = pytest.mark.engine

INDEX_TOPK = 32
NUM_LAYERS = 8
LENGTHS = (20 * INDEX_TOPK, 28 * INDEX_TOPK)
DOCUMENTS_PER_LENGTH = 2
SHARED = "FFSSSFSS"  # freq:4
BUILD_ALL = {"index_cache_pattern": "full", "index_cache_build": "all"}
MAX_LOGPROB_GAP = 1e-4


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_checkpoint(tmp_path_factory.mktemp("evaluate"), index_topk=INDEX_TOPK))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Documents of random words with two answers each; a token is a byte."""
    generator = random.Random(2603)
    words = "river stone light green house old tree moon seven quiet birds walk".split()
    lines = []
    for length in LENGTHS:
        for number in range(DOCUMENTS_PER_LENGTH):
            text = " ".join(generator.choice(words) for _ in range(length))[:length]
            answers = [
                {"task": task, "start": at, "end": at + 4, "depth": 0.5}
                for task, at in (("single", length // 2), ("multi", length - 4))
            ]
            record = {"id": f"{length}-{number}", "length": length, "text": text}
            lines.append(json.dumps({**record, "answers": answers}))
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


def evaluate(*argv: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "sglang_ic.evaluate", *argv],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )


@pytest.fixture(scope="module")
def in_process(model, data, tmp_path_factory):
    """(results.json, the finished process) of one engine with five arms."""
    out = tmp_path_factory.mktemp("in-process")
    patterns = ["--pattern", "full", "--pattern", "freq:4", "--control", "uniform"]
    arguments = ["--model-path", model, "--data", data, *patterns, "--control", "random:1"]
    process = evaluate(*arguments, "--output", str(out), "--", "--chunked-prefill-size", "256")
    assert process.returncode == 0, process.stderr[-3000:]
    assert (out / "overlap.png").exists() and (out / "accuracy.png").exists()
    return json.loads((out / "results.json").read_text()), process


@pytest.fixture(scope="module")
def probed(model):
    """Probed passes under all Full and under a shared pattern, by pattern."""
    jobs = {
        pattern: fork().submit(
            "_evaluate_jobs:probe_passes",
            model=model,
            override={**BUILD_ALL, "index_cache_pattern": pattern},
            length=LENGTHS[0],
            positions=POSITIONS,
            chunk_size=200,
        )
        for pattern in ("F" * NUM_LAYERS, SHARED)
    }
    return {pattern: job.result() for pattern, job in jobs.items()}


POSITIONS = [4 * INDEX_TOPK, 199, 200, 333, LENGTHS[0] - 1]


def arm(document: dict, name: str) -> dict:
    (found,) = [one for one in document["arms"] if one["name"] == name]
    return found


def test_reference_against_itself_differs_in_nothing(in_process):
    overall = arm(in_process[0], "full again")["overall"]
    assert (overall["dnll"], overall["dnll_se"]) == (0.0, 0.0)
    assert (overall["kl_mean"], overall["kl_p99_9"], overall["same_top1"]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("name", ["freq:4", "uniform@3", "random@3/seed:0"])
def test_shared_pattern_changes_what_the_model_predicts(in_process, name):
    found = arm(in_process[0], name)
    assert found["num_full"] == 3
    assert found["overall"]["kl_mean"] > 0.01
    assert found["overall"]["dnll"] != 0.0
    assert found["overall"]["same_top1"] < 0.9
    assert found["overall"]["num_tokens"] == sum(
        DOCUMENTS_PER_LENGTH * (length - 1) for length in LENGTHS
    )


def test_arms_are_different_patterns_and_give_different_losses(in_process):
    arms = in_process[0]["arms"]
    assert [one["pattern"] for one in arms[:3]] == ["F" * 8, "F" * 8, SHARED]
    assert len({one["overall"]["nll"] for one in arms}) == len(arms) - 1


def test_overlap_is_1_on_the_diagonal_and_symmetric(in_process):
    selections = in_process[0]["selections"]
    overlap = np.array(selections["overlap"])
    assert overlap.shape == (NUM_LAYERS, NUM_LAYERS)
    np.testing.assert_allclose(np.diagonal(overlap), 1.0, rtol=1e-6)
    np.testing.assert_allclose(overlap, overlap.T, rtol=1e-6)
    off_diagonal = overlap[~np.eye(NUM_LAYERS, dtype=bool)]
    # Random indexers agree little more than random sets would.
    assert 0 < off_diagonal.mean() < 4 * selections["chance_overlap"] < 0.5


def test_attention_mass_of_full_layers_is_that_of_their_own_set(in_process):
    document = in_process[0]
    for one in document["arms"]:
        attention, pattern = one["attention"], one["pattern"]
        for layer, role in enumerate(pattern):
            own, reused = attention["own_set"][layer], attention["reused_set"][layer]
            assert (own == reused) == (role == "F")
            assert 0 < reused < 1 and 0 < attention["set_in_use"][layer] < 1
        # Nothing before the first Shared layer has changed.
        first = (pattern + "S").index("S")
        assert attention["set_in_use"][:first] == attention["own_set"][:first]
    again = arm(document, "full again")["attention"]
    assert again["set_in_use"] == again["own_set"]


def test_results_tell_how_they_were_made(in_process):
    document, process = in_process
    assert document["schema_version"] == 1
    assert document["settings"]["engine_arguments"] == ["--chunked-prefill-size", "256"]
    assert "--control random:1" in document["command"]
    assert document["software"]["sglang"].startswith("0.5.23+ic")
    assert document["data"]["num_samples"] == {str(n): DOCUMENTS_PER_LENGTH for n in LENGTHS}
    assert arm(document, "random@3/seed:0")["seed"] == 0
    assert "| freq:4" in process.stdout
    for text in (process.stdout, process.stderr):
        assert "Traceback" not in text and "Warning" not in text


def test_probe_changes_nothing_and_leaves_nothing(probed):
    for pattern, found in probed.items():
        logits = found["logits"]
        assert torch.equal(logits["with"], logits["without"]), pattern
        assert torch.equal(logits["after"], logits["without"]), pattern
        assert found["hooks_left"] == 0


def test_probe_sees_the_selections_that_the_engine_recorded(probed):
    for pattern, found in probed.items():
        recorded = found["recorded"][:, POSITIONS].numpy()
        np.testing.assert_array_equal(found["arrays"]["with"]["topk"], recorded, pattern)


def test_probe_sees_the_same_in_chunks(probed):
    for found in probed.values():
        whole, chunked = found["arrays"]["with"], found["arrays"]["in chunks"]
        np.testing.assert_array_equal(chunked["topk"], whole["topk"])
        np.testing.assert_allclose(chunked["mass"], whole["mass"], atol=1e-5)


def test_shared_layers_have_their_owners_selection(probed):
    topk = probed[SHARED]["arrays"]["with"]["topk"]
    for layer, role in enumerate(SHARED):
        owner = SHARED.rindex("F", 0, layer + 1)
        assert (topk[layer] == topk[owner]).all()
        if layer and role == "F":
            assert (topk[layer] != topk[layer - 1]).any()


def test_probes_attention_gives_the_engines_output(probed):
    """Rows that select every token: the engine's output is the probe's shares of the values."""
    for found in probed.values():
        assert len(found["attended"]) == NUM_LAYERS
        for output, expected in found["attended"]:
            torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
        mass = found["arrays"]["short rows"]["mass"]
        np.testing.assert_allclose(mass[~np.isnan(mass)], 1.0, rtol=1e-5)


def test_trained_sharing_is_measured_as_it_is(data, tmp_path):
    """A checkpoint without indexers on its Shared layers: all Full cannot be the reference."""
    folder = write_checkpoint(
        tmp_path / "model",
        index_topk=INDEX_TOPK,
        num_layers=4,
        drop_indexer_layers={1, 3},
    )
    arguments = ["--model-path", str(folder), "--data", data, "--documents", "1"]
    process = evaluate(*arguments, "--output", str(tmp_path / "out"))
    assert process.returncode == 0, process.stderr[-3000:]
    assert "all Full is impossible; the reference is its own pattern" in process.stderr
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    (only,) = document["arms"]
    assert (only["name"], only["pattern"]) == ("FSFS", "FSFS")
    own, used = only["attention"]["own_set"], only["attention"]["set_in_use"]
    assert [own[1], own[3]] == [None, None]
    assert [own[0], own[2]] == [used[0], used[2]]
    assert np.array(document["selections"]["overlap"])[0, 1] == pytest.approx(1.0)


def test_flag_that_sglang_does_not_know_is_one_line(model, data, tmp_path):
    arguments = ["--model-path", model, "--data", data, "--output", str(tmp_path)]
    process = evaluate(*arguments, "--", "--frobnicate")
    assert process.returncode == 2
    last = process.stderr.strip().splitlines()[-1]
    assert last == "error: arguments after --: unrecognized arguments: --frobnicate"
    assert "usage" not in process.stderr


def test_document_that_the_kv_cache_cannot_hold_is_refused(model, data, tmp_path):
    longest = max(LENGTHS)
    arguments = ["--model-path", model, "--data", data, "--output", str(tmp_path)]
    process = evaluate(*arguments, "--", "--max-total-tokens", str(longest + 64))
    assert process.returncode == 2
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: the longest document has {longest} tokens, the KV cache room")
    assert f"--max-total-tokens {longest + 128} " in last
    assert not (tmp_path / "results.json").exists()


def test_scoring_equals_greedy_generation(model):
    found = fork().run(
        "_evaluate_jobs:generated_and_scored",
        model=model,
        override=json.dumps(BUILD_ALL),
        length=LENGTHS[0],
    )
    assert found["right"] == [True, False]
    assert found["scored"] == pytest.approx(found["generated"], abs=MAX_LOGPROB_GAP)
    nothing_on, started, twice, unseen, again = found["refusals"]
    assert "no probe is on" in nothing_on
    assert started is None and again is None
    assert "on already" in twice
    assert "0 of 1 query rows" in unseen


def test_server_scores_as_the_engine_in_process_does(in_process, model, data, tmp_path):
    out = tmp_path / "out"
    arguments = ["--model-path", model, "--index-cache-pattern", "freq:4"]
    with running(tmp_path, *arguments, "--skip-server-warmup") as server:
        process = evaluate("--url", server.url, "--data", data, "--output", str(out))
    assert process.returncode == 0, process.stderr[-3000:]
    document = json.loads((out / "results.json").read_text())
    assert [one["pattern"] for one in document["arms"]] == [SHARED]
    assert document["reference"] == SHARED and "HTTP" in document["not_probed"]
    theirs = in_process[0]["documents"]["freq:4"]
    for mine, other in zip(document["documents"][SHARED], theirs, strict=True):
        assert mine["id"] == other["id"]
        assert mine["nll_sum"] == pytest.approx(other["nll_sum"], rel=1e-4)
        assert mine["answers"] == other["answers"]
