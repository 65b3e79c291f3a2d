"""Scenario files: what they may say, what they become, and that the bundled ones are sound."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sglang_ic.bench import cli
from sglang_ic.bench.scenario import MIN_OUTPUT_TOKENS, MIN_PROMPT_TOKENS
from sglang_ic.bench.scenario_file import ScenarioError, read

ROOT = Path(__file__).parents[3]
BUNDLED = sorted((ROOT / "benchmark" / "scenarios").glob("*.toml"))
TRAFFIC = "[[traffic]]\nprompt_tokens = 1000\noutput_tokens = 100\n"


@pytest.fixture
def scenario(tmp_path):
    def write(text, **kwargs):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return read(path, **kwargs)

    return write


def test_the_bundled_scenarios_cover_what_operators_ask_for():
    scenarios = {path.stem: read(path) for path in BUNDLED}
    points = [point for one in scenarios.values() for point in one.points]
    assert all(one.description for one in scenarios.values())
    longest = max(point.traffic[0].prompt_tokens for point in scenarios["cold-long"].points)
    assert longest == 200_000
    assert any(point.traffic[0].prefix_tokens > 0 and not point.is_chat for point in points)
    assert any(point.is_chat for point in points)
    assert any(len(point.traffic) > 1 for point in points)
    assert len({point.concurrency for point in scenarios["shared-prefix"].points}) >= 3
    assert any(point.rate is not None and dict(point.objective) for point in points)


def test_the_client_finds_the_bundled_scenarios_in_a_checkout():
    assert [path.name for path in sorted(cli.SCENARIOS.glob("*.toml"))] == [f.name for f in BUNDLED]


def test_a_built_wheel_holds_the_bundled_scenarios(tmp_path):
    """In a copy, with the link as a link: a build writes into its source tree."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("python", "benchmark"):
        ignored = shutil.ignore_patterns("*.pyc", "model", "*.egg-info", "reports")
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-index"]
    command = [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for path in BUNDLED:
            packed = archive.read(f"sglang_ic/bench/scenarios/{path.name}")
            assert packed == path.read_bytes()


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_a_bundled_scenario_scales_down_to_the_bundled_model(path):
    for point in read(path, scale=0.02).points:
        assert point.max_context_tokens < 8192


def test_loads_are_lengths_times_concurrency_and_rates(scenario):
    text = "requests = 3\nconcurrency = [1, 4]\nrates = [0.5]\n" + TRAFFIC.replace(
        "1000", "[1000, 2000]"
    )
    points = scenario(text).points
    assert [(p.traffic[0].prompt_tokens, p.concurrency, p.rate) for p in points] == [
        (1000, 1, None),
        (1000, 4, None),
        (1000, None, 0.5),
        (2000, 1, None),
        (2000, 4, None),
        (2000, None, 0.5),
    ]
    assert len({point.key for point in points}) == 6
    # Four at a time cannot be had of three requests.
    assert {(point.concurrency, point.requests) for point in points} == {(1, 3), (4, 4), (None, 3)}


def test_scale_shortens_lengths_to_a_floor_and_nothing_else(scenario):
    text = "concurrency = [4]\n" + TRAFFIC + "prefix_tokens = 5000\nturns = 3\n"
    traffic = scenario(text, scale=0.1).points[0].traffic[0]
    assert (traffic.prompt_tokens, traffic.output_tokens, traffic.prefix_tokens) == (100, 10, 500)
    assert traffic.turns == 3
    tiny = scenario(text, scale=0.0001).points[0].traffic[0]
    assert (tiny.prompt_tokens, tiny.output_tokens) == (MIN_PROMPT_TOKENS, MIN_OUTPUT_TOKENS)
    no_prefix = scenario("concurrency = [1]\n" + TRAFFIC, scale=0.1).points[0].traffic[0]
    assert no_prefix.prefix_tokens == 0


def test_lengths_that_meet_when_shortened_are_refused(scenario):
    text = "concurrency = [1]\n" + TRAFFIC.replace("1000", "[1000, 2000]")
    assert len(scenario(text, scale=0.1).points) == 2
    with pytest.raises(ScenarioError, match=r"two loads are called '16 tokens.*larger --scale"):
        scenario(text, scale=0.001)


def test_relative_values_become_numbers(scenario):
    text = 'rates = ["80%"]\nobjective = { ttft_ms = "2x", itl_ms = 50 }\n' + TRAFFIC
    point = scenario(text).points[0]
    assert point.is_relative
    told = point.resolved(capacity_per_sec=10.0, alone_ms={"ttft_ms": 300.0})
    assert told.rate == pytest.approx(8.0)
    assert dict(told.objective) == {"ttft_ms": 600.0, "itl_ms": 50.0}
    assert not told.is_relative and told.key == point.key


@pytest.mark.parametrize(
    ("text", "offence"),
    [
        ("not toml", "cannot be read"),
        ("concurrency = [1]\n", r"no \[\[traffic\]\]"),
        (TRAFFIC, "neither concurrency nor rates"),
        ("concurrency = [0]\n" + TRAFFIC, "concurrency 0"),
        ("concurrency = [true]\n" + TRAFFIC, "concurrency True"),
        ("concurrency = 4\n" + TRAFFIC, "concurrency 4"),
        ("rates = 1.0\n" + TRAFFIC, "rates 1.0"),
        ('rates = ["fast"]\n' + TRAFFIC, "rate 'fast'"),
        ('rates = ["-5%"]\n' + TRAFFIC, "rate '-5%'"),
        ("rates = [0]\n" + TRAFFIC, "rate 0"),
        ('concurrency = [1]\nobjective = { ttft_ms = "2%" }\n' + TRAFFIC, "ttft_ms '2%'"),
        ("concurrency = [1]\nobjective = { tpot = 2 }\n" + TRAFFIC, "objective 'tpot' is unknown"),
        ("concurency = [1]\n" + TRAFFIC, "key 'concurency' is unknown"),
        ("concurrency = [1]\n" + TRAFFIC + "range_ratio = 1.0\n", "range_ratio 1.0"),
        ("concurrency = [1]\n" + TRAFFIC + "turns = 0\n", "turns 0"),
        ("concurrency = [1]\n" + TRAFFIC + "prefix_tokens = -1\n", "prefix_tokens"),
        ("concurrency = [1]\n" + TRAFFIC + TRAFFIC + "turns = 2\n", "sessions cannot be mixed"),
        ("concurrency = [1]\n[[traffic]]\nprompt_tokens = 5\n", "without output_tokens"),
        ("concurrency = [1]\n[[traffic]]\nprompt_tokens = []\noutput_tokens = 5\n", "empty"),
        ("requests = 'x'\nconcurrency = [1]\n" + TRAFFIC, "requests 'x'"),
        ("concurrency = [1]\n" + TRAFFIC + "weight = 0\n", "weight"),
        ("concurrency = [2, 2]\n" + TRAFFIC, "two loads are called '2 at a time'"),
        ("concurrency = [1]\n" + TRAFFIC + "weight = 'a'\n", "weight 'a'"),
    ],
)
def test_a_scenario_without_meaning_is_refused_in_one_line(scenario, text, offence):
    with pytest.raises(ScenarioError, match=offence) as error:
        scenario(text)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ScenarioError, match="absent.toml.*No such file"):
        read(tmp_path / "absent.toml")
