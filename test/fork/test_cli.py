"""Help explains the workflow, and bad use is exit code 2."""

import subprocess
import sys

import pytest
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


def test_module_runs_and_only_needs_the_standard_library(forked):
    command = [sys.executable, "-m", "sglang_ic.fork", "status", "--patches", str(forked.patches)]
    code = (
        "import runpy, sys; sys.argv[1:] = sys.argv[1:]; before = set(sys.modules)\n"
        "try: runpy.run_module('sglang_ic.fork', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "new = {m.split('.')[0] for m in set(sys.modules) - before} - {'sglang_ic'}\n"
        "other = {m for m in new if m not in sys.stdlib_module_names and not m.startswith('_')}\n"
        "assert not other, other"
    )
    subprocess.run([sys.executable, "-c", code, *command[3:]], check=True, capture_output=True)


def test_unwritable_output_is_one_line(forked, refusal):
    (forked.root / "file").touch()
    code = forked.run("build", "--wheel", forked.wheel, "--out", forked.root / "file")
    refusal(code, "file")
