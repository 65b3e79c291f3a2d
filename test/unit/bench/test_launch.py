"""How servers are started: what they get, and what a user cannot set behind the client's back."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from sglang_ic.bench import launch
from sglang_ic.bench.arms import ArmError, parse_all
from sglang_ic.server import arguments


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """launcher(["full", "stock"], ["--tp", "8"], cpu=False) -> what would be started."""

    @dataclass
    class Server:
        name: str
        command: list[str]
        environment: dict[str, str]
        log: Path

    monkeypatch.setattr(launch, "LaunchedServer", Server)

    def make(texts, flags=(), *, cpu=True, model=None):
        monkeypatch.setattr(arguments, "wants_cpu", lambda argv: cpu)
        arms = parse_all(texts, control=False)
        options = dict(model=model, stock_python="/bin/sh", flags=list(flags), logs=tmp_path)
        on_cpu, start = launch.launcher(arms, **options)
        assert on_cpu is cpu
        return [start(arm) for arm in arms]

    return make


@pytest.mark.parametrize("flag", launch.OWN_FLAGS)
@pytest.mark.parametrize("form", ["{} 1", "{}=1"])
def test_a_flag_that_would_override_the_clients_is_refused(launcher, flag, form):
    with pytest.raises(ArmError, match=f"{flag} after --") as error:
        launcher(["full"], form.format(flag).split())
    assert "\n" not in str(error.value)


def test_stock_gets_what_our_server_adds_by_itself(launcher):
    ours, stock = launcher(["full", "stock"], cpu=True)
    assert "--device" not in ours.command and stock.command[-1] == "--sleep-on-idle"
    ours, stock = launcher(["full", "stock"], cpu=False)
    assert stock.command[-2:] == ["--dsa-topk-backend", "torch"]
    assert "--dsa-topk-backend" not in ours.command
    assert stock.environment == arguments.BUNDLED_CUDA_ENVIRONMENT and not ours.environment
    _, stock = launcher(["full", "stock"], cpu=False, model="zai-org/GLM-5")
    assert "--dsa-topk-backend" not in stock.command and not stock.environment


def test_servers_get_ports_of_their_own(launcher):
    servers = launcher(["full", "a=freq:4", "stock"])
    ports = [server.command[server.command.index("--port") + 1] for server in servers]
    assert len(set(ports)) == 3
