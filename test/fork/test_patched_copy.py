"""benchmark/patched_copy.sh: a copy has the plugins of an installed package, in every script."""

import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmark/patched_copy.sh"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def shell(line: str) -> subprocess.CompletedProcess:
    """A line of bash behind the sourced file, as the scripts run it."""
    command = ["bash", "-euo", "pipefail", "-c", f". {SCRIPT}\n{line}"]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_copy_has_every_entry_point_of_the_project(tmp_path):
    done = shell(f"plugin_entry_points {tmp_path} {sys.executable}")
    assert done.returncode == 0, done.stderr
    (found,) = distributions(path=[str(tmp_path)])
    assert (found.name, found.version) == (PROJECT["name"], PROJECT["version"])
    told: dict[str, dict[str, str]] = {}
    for one in found.entry_points:
        told.setdefault(one.group, {})[one.name] = one.value
    assert told == PROJECT["entry-points"]
    assert len(told["sglang.srt.plugins"]) == 3


def test_a_copy_that_cannot_be_patched_ends_the_script(tmp_path):
    (tmp_path / "site/sglang").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    done = shell(f"patched_copy {tmp_path}/site {tmp_path}/work {sys.executable}\necho went on")
    assert done.returncode != 0 and "went on" not in done.stdout
    assert not list((tmp_path / "work").glob("*.dist-info"))


def test_every_offline_script_makes_its_copy_there():
    scripts = [*ROOT.glob("benchmark/*/run_offline.sh"), *ROOT.glob("test/*/run_offline.sh")]
    assert len(scripts) == 3
    for script in scripts:
        text = script.read_text()
        assert '. "$root/benchmark/patched_copy.sh"' in text and "entry_points" not in text
