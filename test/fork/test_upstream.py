"""The pin is checked when read."""

import pytest
from _synthetic import WHEEL

from sglang_ic.fork import ForkError
from sglang_ic.fork.series import default_patches
from sglang_ic.fork.upstream import load_pin, wheel_tags

SHA = "0" * 64
GOOD = f'package = "sglang"\nversion = "1.2.3"\nfork = 2\n[wheels]\n"{WHEEL}" = "{SHA}"\n'


def test_names_follow_from_the_pin(tmp_path):
    (tmp_path / "UPSTREAM").write_text(GOOD)
    pin = load_pin(tmp_path)
    assert pin.fork_version == "1.2.3+ic.2"
    assert pin.fork_dist_info == "sglang-1.2.3+ic.2.dist-info"
    assert pin.fork_wheel(WHEEL) == "sglang-1.2.3+ic.2-py3-none-any.whl"
    assert pin.wheel_named(SHA) == WHEEL and pin.wheel_named("1" * 64) is None


def test_repository_pins_each_supported_python_on_both_machines():
    tags = {wheel_tags(name) for name in load_pin(default_patches()).wheels}
    for python in ("cp311", "cp312", "cp313"):
        for machine in ("x86_64", "aarch64"):
            assert f"{python}-{python}-manylinux_2_34_{machine}" in tags


@pytest.mark.parametrize(
    "text, message",
    [
        ("package = ", "not readable as TOML"),
        (GOOD.replace("fork = 2\n", ""), "must have"),
        (GOOD.replace("fork", "spoon"), "must have"),
        (GOOD.replace("fork = 2", "fork = true"), "fork is True: must be a int"),
        (GOOD.replace("fork = 2", "fork = 0"), "fork is 0: must be 1 or more"),
        (GOOD.replace(SHA, SHA[1:]), "must be 64 hex digits"),
        (GOOD.replace("sglang-1.2.3", "sglang-1.2.4"), "must look like sglang-1.2.3-"),
        (GOOD[: GOOD.index('"sglang-')], r"\[wheels\] is empty"),
    ],
)
def test_malformed_pin_is_refused(tmp_path, text, message):
    (tmp_path / "UPSTREAM").write_text(text)
    with pytest.raises(ForkError, match=message):
        load_pin(tmp_path)


def test_missing_pin_names_the_option(tmp_path):
    with pytest.raises(ForkError, match="--patches"):
        load_pin(tmp_path)
