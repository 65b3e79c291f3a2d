"""compose.yaml and its GPU override: they agree with the Dockerfiles and type real commands."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from _dockerfile import parse

from sglang_ic.bench import arms, options, scenario_file

FOLDER = Path(__file__).parents[2] / "docker"


def load(name: str, environment: dict[str, str]) -> dict:
    """The file with `${NAME:-default}` filled in; another form of a variable is refused."""
    text = re.sub(
        r"\$\{(\w+):-(\w*)\}",
        lambda match: environment.get(match[1]) or match[2],
        (FOLDER / name).read_text(),
    )
    assert "$" not in re.sub(r"(?m)^\s*#.*$", "", text)
    return yaml.safe_load(text)


@pytest.fixture
def compose():
    return load("compose.yaml", {})


@pytest.fixture
def gpu():
    return load("compose.gpu.yaml", {})


def built(service: dict):
    """The Dockerfile of a service that is built."""
    path = FOLDER / service["build"].get("context", "..") / service["build"]["dockerfile"]
    return parse(path.read_text())


def test_the_plain_command_starts_a_server_and_nothing_else(compose):
    plain = [name for name, one in compose["services"].items() if "profiles" not in one]
    assert plain == ["server"]
    assert not compose["services"]["server"]["command"]  # the bundled model, its own pattern


def test_the_client_waits_for_the_health_check_of_the_server(compose, gpu):
    (waits,) = compose["services"]["bench"]["depends_on"].items()
    assert waits == ("server", {"condition": "service_healthy"})
    for file in (compose, gpu):
        assert built(file["services"]["server"]).final.all("HEALTHCHECK")


def test_server_and_client_are_one_image(compose, gpu):
    """The client reads the tokenizer at the path that the server names."""
    for file in (compose, gpu):
        server, bench = (file["services"][name] for name in ("server", "bench"))
        assert (server["image"], server["build"]) == (bench["image"], bench["build"])


def test_only_loopback_is_published_and_it_is_the_port_of_the_image(compose):
    port = built(compose["services"]["server"]).final.last("EXPOSE").value
    assert compose["services"]["server"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def mounts(service: dict) -> dict[str, str]:
    """Target to source."""
    return {target: source for source, target in (one.split(":") for one in service["volumes"])}


def test_volumes_are_declared_and_are_those_of_the_images(compose, gpu):
    server, bench = (mounts(compose["services"][name]) for name in ("server", "bench"))
    assert {*server.values(), *bench.values()} == set(compose["volumes"])
    for file in (compose, gpu):
        assert set(bench) == set(built(file["services"]["server"]).final.last("VOLUME").array)


def test_only_the_client_writes_reports(compose):
    server, bench = (mounts(compose["services"][name]) for name in ("server", "bench"))
    assert bench == {**server, "/reports": "reports"}
    assert "/reports" not in server


def test_folders_of_the_user_take_the_place_of_volumes():
    """Absolute, as the header says: Compose takes a bare name for a volume."""
    services = load("compose.yaml", {"MODELS": "/srv/models", "REPORTS": "/home/me/out"})[
        "services"
    ]
    assert mounts(services["server"]) == {"/cache": "cache", "/models": "/srv/models"}
    assert mounts(services["bench"])["/reports"] == "/home/me/out"
    assert mounts(services["bench"])["/models"] == "/srv/models"  # the tokenizer of the checkpoint
    header = (FOLDER / "compose.yaml").read_text().partition("\nname:")[0]
    assert len(re.findall(r"(?:MODELS|REPORTS) +absolute path", header)) == 2


def test_the_header_explains_every_variable():
    text = (FOLDER / "compose.yaml").read_text()
    header = text.partition("\nname:")[0]
    for name in re.findall(r"\$\{(\w+)", text):
        assert re.search(rf"^#   {name} ", header, re.M), name


def test_the_client_is_called_as_its_own_parser_wants(compose):
    service = compose["services"]["bench"]
    image = built(compose["services"]["server"]).final
    interpreter, flag, module, *words = service["entrypoint"]
    assert [interpreter, flag] == image.last("ENTRYPOINT").array[:2]
    assert importlib.util.find_spec(f"{module}.__main__")
    args = options.parser().parse_args([*words, *service["command"]])
    (arm,) = (one for one in arms.parse_all(args.arm, control=False))
    assert arm.url == f"http://server:{image.last('EXPOSE').value}"
    # The report goes below the working directory, which is a volume.
    assert not args.output.is_absolute()
    assert f"reports:{image.last('WORKDIR').value}" in service["volumes"]


def test_the_default_load_is_small_enough_for_a_slow_cpu(compose):
    """Minutes at the few hundred tokens a second of two slow cores, also if nothing was cached."""
    args = options.parser().parse_args(compose["services"]["bench"]["command"])
    scenarios = [
        scenario_file.read(
            FOLDER.parent / f"benchmark/scenarios/{name}.toml",
            scale=args.scale,
            requests=args.requests,
        )
        for name in args.scenario
    ]
    tokens = sum(point.expected_tokens for one in scenarios for point in one.points)
    arms_and_control = 2
    assert 0 < tokens * args.rounds * arms_and_control < 40_000
    assert args.rounds > 1  # a ratio has an interval


def test_server_and_client_get_time_to_end_and_to_write(compose):
    for service in compose["services"].values():
        assert service["init"] is True  # SIGTERM ends also a server that is still loading
        assert service["stop_grace_period"] == "1m"


def test_the_gpu_file_changes_images_and_devices_only(compose, gpu):
    assert set(gpu["services"]) == set(compose["services"])
    images = {one["image"] for one in gpu["services"].values()}
    assert images == {"sglang-ic:cuda"}
    server = gpu["services"]["server"]
    assert built(server).final.last("ENV").pairs["CUDA_HOME"]
    (device,) = server["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert server["ipc"] == "host"
    assert not {"command", "volumes", "ports", "depends_on"} & set(server)


def test_commands_in_the_comments_name_files_that_exist():
    for name in ("compose.yaml", "compose.gpu.yaml"):
        for path in re.findall(r"docker/\w[\w.]+\b", (FOLDER / name).read_text()):
            assert (FOLDER.parent / path).is_file(), path
