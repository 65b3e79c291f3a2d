"""Help explains the workflow, and bad use is exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest

import sglang_ic.fork
from sglang_ic.fork.cli import main

COMMANDS = ("build", "apply", "verify", "refresh", "status", "unpack", "diff")


def test_help_names_every_command_and_the_workflow(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in out
    assert "diff --tree TREE --name" in out


@pytest.mark.parametrize("argv", [[], ["build", "--nope"], ["apply"], ["diff", "--tree", "x"]])
def test_bad_use_is_exit_code_2(argv):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2


@pytest.mark.parametrize("command", ["build", "verify", "refresh", "status"])
def test_wrong_patch_directory_is_one_line(tmp_path, command, refusal):
    refusal(main([command, "--patches", str(tmp_path)]), "UPSTREAM: no such file")


def test_module_runs_on_a_bare_python(forked):
    command = [sys.executable, "-S", "-m", "sglang_ic.fork"]  # -S: no site-packages
    command += ["status", "--patches", str(forked.patches)]
    env = {"PYTHONPATH": str(Path(sglang_ic.fork.__file__).parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "installed:  none" in done.stdout


def test_unwritable_output_is_one_line(forked, refusal):
    (forked.root / "file").touch()
    code = forked.run("build", "--wheel", forked.wheel, "--out", forked.root / "file")
    refusal(code, "file")
