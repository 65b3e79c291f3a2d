"""The CPU image without an engine: its own build steps in an empty directory, then its entry point.

The build stage is run as written: COPY copies, RUN runs, with PREFIX and WORKDIR inside a scratch
directory. The final stage's RUN needs root and a Debian (test_dockerfiles.py holds it to apt-get,
useradd and install), so it is left out; its ENV, ENTRYPOINT and STOPSIGNAL are taken as they are.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from _dockerfile import expand, health_command, parse
from _machine import build_arguments, checkout_files, interpreter_on_path, pip_config

from sglang_ic.bench.servers import free_port
from sglang_ic.demo import default_pattern_file
from sglang_ic.pattern_file import file_text

ROOT = Path(__file__).parents[2]
START_TIMEOUT_SEC = 600  # half a minute, but where tests run, others may too
TINY = """description = "One request."
requests = 1
concurrency = [1]
[[traffic]]
prompt_tokens = 64
output_tokens = 8
"""

# As the steps type it; the lock and the wheel are for this Python alone.
PYTHON = re.search(r"python[\d.]+(?= -m venv)", (ROOT / "docker/Dockerfile.cpu").read_text())[0]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        "python{}.{}".format(*sys.version_info) != PYTHON,
        reason=f"the image's steps need {PYTHON}, the tests run with another",
    ),
]


def clean_environment() -> dict[str, str]:
    """This process's environment without what points to the checkout or to its environments."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    path = [p for p in os.environ["PATH"].split(os.pathsep) if not Path(p).is_relative_to(ROOT)]
    kept = {k: v for k, v in os.environ.items() if k not in dropped and "SGLANG" not in k}
    return {**kept, "PATH": os.pathsep.join(path)}


def copy(source: str, target: Path) -> None:
    """What COPY takes: the files at or under `source`, links as links."""
    base = ROOT / source if (ROOT / source).is_dir() else (ROOT / source).parent
    for name in checkout_files(ROOT, source):
        place = target / (ROOT / name).relative_to(base)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, place, follow_symlinks=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Runs the build stage; gives the final stage and the environment that its processes have."""
    scratch = tmp_path_factory.mktemp("image")
    file = parse((ROOT / "docker/Dockerfile.cpu").read_text())
    prefix = scratch / "prefix"
    machine = clean_environment()
    given = build_arguments(prefix, machine, pip_config(machine))
    programs = scratch / "bin"
    programs.mkdir()
    interpreter_on_path(programs, PYTHON)
    machine["PATH"] = f"{programs}{os.pathsep}{machine['PATH']}"
    arguments, folder = {}, scratch
    for one in file.stage("build").instructions:
        if one.keyword == "ARG":
            for name, default in one.pairs.items():
                value = given.get(name, default or file.arguments.get(name))
                if value is not None:
                    arguments[name] = value
        elif one.keyword == "WORKDIR":
            folder = scratch / one.value.lstrip("/")
            folder.mkdir(parents=True)
        elif one.keyword == "COPY":
            *sources, target = one.words
            for source in sources:
                is_folder = (ROOT / source).is_dir()
                copy(source, folder / target)
                assert is_folder or target.endswith("/")  # else it would be a file's new name
        else:
            assert one.keyword == "RUN"
            done = subprocess.run(
                ["/bin/sh", "-c", one.value],
                cwd=folder,
                # Byte code: only of what is imported, which takes a minute less.
                env={**machine, "PIP_COMPILE": "0", **arguments},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, (
                f"{one.value}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            )
    shutil.rmtree(folder)  # the final stage has the prefix alone
    environment = clean_environment()
    for name, value in file.final.last("ENV").pairs.items():
        environment[name] = expand(value, {**environment, "PREFIX": str(prefix)})
    environment["HOME"] = str(scratch / "home")
    for place in ("home", "reports"):
        (scratch / place).mkdir()
    yield file.final, environment, scratch / "reports"
    shutil.rmtree(scratch)


@pytest.fixture(scope="module")
def server(image):
    """The entry point, on a free port of the loopback; gives its process and URL."""
    final, environment, folder = image
    port = free_port(set())
    command = [*final.last("ENTRYPOINT").array, "--host", "127.0.0.1", "--port", str(port)]
    # execvpe, as an engine does it: the program is looked up in the PATH of the image.
    command[0] = shutil.which(command[0], path=environment["PATH"])
    log = folder / "server.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_TIMEOUT_SEC
    try:
        while not is_healthy(final, environment, port):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)
        yield process, url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def is_healthy(final, environment, port: int) -> bool:
    """The health check itself, but for the port."""
    command = health_command(final, shutil.which("python", path=environment["PATH"]), port)
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


def ask(url: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.loads(answer.read())


def test_the_prefix_holds_the_fork_and_the_package_and_no_checkout(image):
    _, environment, folder = image
    code = "import sglang as s, sglang_ic; print(s.__version__, s.__file__, sglang_ic.__file__)"
    python = shutil.which("python", path=environment["PATH"])
    command = [python, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    version, *files = done.stdout.split()
    assert "+ic." in version
    assert all(Path(file).is_relative_to(folder.parent / "prefix") for file in files)


def test_the_entry_point_serves_with_the_index_cache(server):
    _, url = server
    told = ask(f"{url}/index_cache")
    pattern = told["pattern"]
    assert pattern == file_text(str(default_pattern_file()), len(pattern))
    body = {"model": "default", "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    body["messages"] = [{"role": "user", "content": "Hello"}]
    answer = ask(f"{url}/v1/chat/completions", body)
    assert answer["usage"]["completion_tokens"] == 4


def test_the_client_measures_the_server_as_compose_lets_it(server, image):
    """On the smallest load that makes a report."""
    _, environment, folder = image
    (folder / "tiny.toml").write_text(TINY)
    command = [shutil.which("python", path=environment["PATH"]), "-m", "sglang_ic.bench"]
    command += ["--arm", f"server={server[1]}", "--no-control", "--rounds", "1"]

    def run(scenario):
        words = [*command, "--scenario", scenario]
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)

    done = run("tiny.toml")
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((folder / "bench-report/report.json").read_text())
    assert [point["scenario"] for point in report["points"]] == ["tiny"]
    bundled = {path.stem for path in (ROOT / "benchmark/scenarios").glob("*.toml")}
    assert bundled <= set(re.findall(r"[\w-]+", run("none").stderr))


def test_the_stop_signal_ends_the_server(server, image):
    """Last: nothing is served after it."""
    process, _ = server
    process.send_signal(getattr(signal, image[0].last("STOPSIGNAL").value))
    assert process.wait(60) == 0
