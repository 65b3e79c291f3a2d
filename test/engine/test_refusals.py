"""Bad flags end with one line that names the value, and exit code 2: no traceback, no server."""

import subprocess

import pytest
from _server import launch

pytestmark = pytest.mark.engine

REFUSED = {
    "wrong length": (["--index-cache-pattern", "FSS"], "'FSS' has 3 letters"),
    "empty": (["--index-cache-pattern", ""], "--index-cache-pattern"),
    "preset of another model": (["--index-cache-pattern", "preset:glm-5-1/4"], "glm-5-1/4"),
    "candidate layers without their variable": (
        ["--index-cache-pattern", "F" + "C" * 15],
        "set SGLANG_IC_APPROXIMATE_CANDIDATE_PAGES",
    ),
    "a list for the documented key": (
        ["--json-model-override-args", '{"index_topk_pattern": ["F", "S"]}'],
        "index_topk_pattern",
    ),
    "override args that are no JSON": (["--json-model-override-args", "{"], "is not JSON"),
    "two-batch overlap with our pattern": (
        ["--enable-two-batch-overlap"],
        "--enable-two-batch-overlap cannot be combined with the pattern FFFSFFFSFFFSFFSS",
    ),
    "a model that is not there": (["--model-path", "no/such/model"], "no/such/model"),
}


@pytest.fixture(scope="module")
def answers():
    """Start all of them two at a time, since most of the time is importing."""
    found, waiting = {}, list(REFUSED.items())
    while waiting:
        batch, waiting = waiting[:2], waiting[2:]
        started = [
            (name, launch(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
            for name, (argv, _) in batch
        ]
        for name, process in started:
            _, errors = process.communicate(timeout=300)
            found[name] = (process.returncode, errors)
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_bad_flag_is_refused_with_one_line(answers, name):
    code, errors = answers[name]
    assert code == 2, errors[-2000:]
    last = errors.strip().splitlines()[-1]
    assert last.startswith("sglang_ic.launch_server: error: ")
    assert REFUSED[name][1] in last
    assert "Traceback" not in errors
