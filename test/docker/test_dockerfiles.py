"""Both Dockerfiles: sound by a linter's rules, and at one with the pins and the checkout.

No container engine is needed; test_run_steps.py runs the CPU file's steps.
"""

import contextlib
import fnmatch
import http.server
import importlib.util
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
from _dockerfile import expand, health_command, parse, sources
from _lint import lint
from _machine import checkout_files

ROOT = Path(__file__).parents[2]
GLIBC = {"bookworm": (2, 36), "trixie": (2, 41)}  # what Debian's releases have


def locked(name: str, package: str) -> str:
    text = (ROOT / "requirements" / name).read_text()
    return re.search(rf"^{package}==(\S+)", text, re.M)[1]


def test_both_files_are_clean(dockerfile):
    assert lint(dockerfile) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("BASE=python:3.11-slim-bookworm", "BASE=python", "no tag"),
        ("BASE=python:3.11-slim-bookworm", "BASE=python:latest", "no tag"),
        ("FROM ${BASE}\nARG PREFIX", "FROM ${BASE}", "${PREFIX} is not declared"),
        ("ARG PIP_NO_CACHE_DIR=1\n", "", "pip's cache"),
        ("--no-install-recommends ", "", "apt-get install without"),
        ("    && rm -rf /var/lib/apt/lists/* \\\n", "", "apt-get install without"),
        ("USER sglang", "USER root", "runs as root"),
        ("&& ldconfig", "&& ${PREFIX}/bin/python -m x", "belongs into the build stage"),
        ("USER sglang\n", "", "0 USER"),
        ("COPY --from=build", "COPY --from=builder", "no earlier stage"),
        ("&& useradd", "; useradd", "use &&"),
        ("&& useradd", "&& cd / && useradd", "cd or sudo"),
        ('ENTRYPOINT ["python", "-m"', "ENTRYPOINT python -m", "no JSON array"),
        ('CMD ["python", "-c"', "CMD python -c", "HEALTHCHECK is no JSON array"),
        ("WORKDIR /src\n", "", "without a WORKDIR"),
        ("RUN python3.11", "RUN (python3.11", "line"),
        ("EXPOSE 30000\n", "", "0 EXPOSE"),
    ],
)
def test_the_linter_sees_a_mistake(old, new, complaint):
    text = (ROOT / "docker/Dockerfile").read_text()
    assert old in text
    assert any(complaint in one for one in lint(parse(text.replace(old, new))))


def test_an_unknown_instruction_is_refused():
    with pytest.raises(ValueError, match="line 2: 'ADD x /'"):
        parse("FROM python:3.11\nADD x /\n")


def test_every_copied_file_is_in_the_checkout_and_sent_to_the_engine(dockerfile):
    """Docker's context is what .dockerignore leaves, the steps need what COPY names: the same."""
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    for source in sources(dockerfile):
        assert checkout_files(ROOT, source), f"{source} is not in the checkout, or ignored by git"
        assert any(fnmatch.fnmatch(source, rule) for rule in allowed), f"{source} is ignored"


def test_dockerignore_lets_through_nothing_that_is_not_copied():
    copied = set()
    for file in ("Dockerfile", "Dockerfile.cpu"):
        copied |= set(sources(parse((ROOT / "docker" / file).read_text())))
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            assert fnmatch.filter(copied, line[1:]), line


def test_python_is_that_of_the_lock_and_of_a_pinned_wheel(dockerfile):
    base = re.fullmatch(r"python:(\d+\.\d+)-slim-(\w+)", dockerfile.arguments["BASE"])
    python, debian = base.groups()
    for name in ("cpu.txt", "cuda.txt"):
        header = (ROOT / "requirements" / name).read_text().splitlines()[0]
        assert f"with Python {python}." in header
    assert f"python{python} -m venv" in dockerfile.stage("build").all("RUN")[0].value
    wheels = tomllib.loads((ROOT / "patches/UPSTREAM").read_text())["wheels"]
    tag = "cp" + python.replace(".", "")
    glibc = [re.search(r"manylinux_(\d+)_(\d+)_", name) for name in wheels if f"-{tag}-" in name]
    assert glibc
    assert all(GLIBC[debian] >= (int(match[1]), int(match[2])) for match in glibc)


def test_the_toolkit_is_the_cuda_of_pytorch(cuda):
    toolkit = re.fullmatch(r"nvidia/cuda:([\d.]+)-devel-\w+\.\d+", cuda.arguments["TOOLKIT"])[1]
    assert locked("cuda.txt", "cuda-toolkit").startswith(f"{toolkit}.")


def test_both_files_install_their_lock_and_the_patched_wheel(dockerfile):
    lock = "cpu.txt" if "cpu" in dockerfile.final.last("LABEL").value.lower() else "cuda.txt"
    first, second = (one.value for one in dockerfile.stage("build").all("RUN"))
    assert first.endswith(f"-m pip install -r requirements/{lock}")
    assert "-m sglang_ic.fork build && " in second


def test_both_files_differ_only_where_cuda_does(cpu, cuda):
    """The common steps are written twice: a change to one of them must reach the other."""

    def steps(stage, *left_out):
        return [
            (one.keyword, re.sub(r"cpu|cuda|CPU|CUDA", "", one.value))
            for one in stage.instructions
            if one.keyword not in left_out
        ]

    assert steps(cpu.stage("build"), "ARG") == steps(cuda.stage("build"), "ARG")
    special = ("RUN", "ENV", "HEALTHCHECK")
    copies = [step for step in steps(cuda.final, *special) if "toolkit" not in step[1]]
    assert steps(cpu.final, *special) == copies
    assert cpu.final.last("HEALTHCHECK").array == cuda.final.last("HEALTHCHECK").array


def test_no_version_is_written_that_no_test_compares(dockerfile):
    checked = {*dockerfile.arguments.values(), "Apache-2.0"}
    text = "\n".join(one.value for s in dockerfile.stages for one in s.instructions)
    for word in checked:
        text = text.replace(word, "")
    text = re.sub(r"\b(127\.0\.0\.1|0\.0\.0\.0)\b|python3\.11", "", text)
    assert not re.search(r"\d+\.\d+", text)


JIT_LIBRARIES = """
    lib/libcudart.so lib/libcudart_static.a lib/libcudadevrt.a lib/stubs/libcuda.so
    lib/libcublas.so.13 lib/libcublasLt.so lib/libnvrtc.so lib/stubs/libnvrtc.so
    include/cusparse.h include/curand_kernel.h include/cufft.h
    bin/nvcc bin/cuobjdump bin/nvdisasm nvvm/bin/cicc
""".split()
OTHER_LIBRARIES = """
    lib/libcufft.so.12 lib/libcufftw.so lib/libcurand.so lib/libcusolverMg.so.12 lib/libcusparse.so
    lib/libnppif.so.13 lib/libnvjpeg.so lib/libcublas_static.a lib/libcufft_static_nocallback.a
    nsight-compute-2025.3.1/ncu compute-sanitizer/x bin/cuda-gdb bin/cuda-gdb-minimal
    lib/stubs/libcusolver.so
""".split()


def test_the_toolkit_keeps_what_kernels_are_compiled_and_linked_with(cuda, tmp_path):
    """The step itself, on a tree with the names that the toolkit has."""
    real = tmp_path / "cuda-13.0"
    for name in JIT_LIBRARIES + OTHER_LIBRARIES:
        (real / name).parent.mkdir(parents=True, exist_ok=True)
        (real / name).touch()
    (real / "lib/libcufft.so").symlink_to("libcufft.so.12")
    (tmp_path / "cuda").symlink_to(real)
    step = cuda.stage("toolkit").last("RUN").value
    step = step.replace("/usr/local/cuda", f"{tmp_path}/cuda").replace(
        " /toolkit", f" {tmp_path}/to"
    )
    subprocess.run(["sh", "-c", step], check=True)
    assert (tmp_path / "to").is_dir() and not (tmp_path / "to").is_symlink()
    kept = {
        path.relative_to(tmp_path / "to").as_posix()
        for path in (tmp_path / "to").rglob("*")
        if not path.is_dir()
    }
    assert kept == set(JIT_LIBRARIES)


def upstream(name: str) -> str:
    """A file of the installed SGLang."""
    sglang = importlib.util.find_spec("sglang")
    if sglang is None:
        pytest.skip("needs SGLang")
    return Path(sglang.submodule_search_locations[0], name).read_text()


def test_the_port_is_the_one_that_is_exposed_and_served(dockerfile):
    port = dockerfile.final.last("EXPOSE").value
    assert f"'127.0.0.1', {port}," in dockerfile.final.last("HEALTHCHECK").value
    assert "--port" not in dockerfile.final.last("ENTRYPOINT").array
    fields = upstream("srt/arg_groups/fields/serving.py")
    assert re.search(rf"^    port: .* = {port}$", fields, re.M)


@contextlib.contextmanager
def answering(status: int):
    """An HTTP server that knows /ready; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/ready" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def exit_code_of_the_check(dockerfile, port: int) -> int:
    # What Docker puts into containers for a machine behind a proxy.
    proxy = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    command = health_command(dockerfile.final, sys.executable, port)
    return subprocess.run(command, env=os.environ | proxy, capture_output=True).returncode


def test_the_health_check_tells_a_ready_server_from_one_that_is_not(cpu):
    """Engines know 0 and 1. That both files have the same check is tested above."""
    for status, code in ((200, 0), (503, 1)):
        with answering(status) as port:
            assert exit_code_of_the_check(cpu, port) == code
    assert exit_code_of_the_check(cpu, port) == 1  # nothing listens there now


def test_the_health_check_generates_nothing_and_needs_no_key():
    """What the files lean on: /health would add a request each time, and wait for a prefill."""
    text = upstream("srt/entrypoints/http_server.py")
    route = re.search(r'@app\.get\("/ready"\)\n(.*?)\n\n\n', text, re.S)
    assert route, "SGLang has no /ready any more: choose another flag for HEALTHCHECK"
    assert "is_ready()" in route[1] and "await" not in route[1]
    assert 'path.startswith("/ready")' in upstream("srt/utils/auth.py")


def test_the_health_check_is_quick_at_the_start_and_patient_afterwards(dockerfile):
    flags = dockerfile.final.last("HEALTHCHECK").flags
    interval, timeout = (int(flags[name].removesuffix("s")) for name in ("interval", "timeout"))
    assert interval <= 10  # how late compose notices that the server is up
    assert interval * int(flags["retries"]) >= 60
    inner = re.search(r"timeout=(\d+)\)", dockerfile.final.last("HEALTHCHECK").value)[1]
    assert int(inner) < timeout


def test_what_the_user_writes_to_belongs_to_the_user(dockerfile):
    final = dockerfile.final
    (setup,) = final.all("RUN")
    home = final.last("ENV").pairs["HOME"]
    assert f"--home-dir {home} --create-home {final.last('USER').value}" in setup.value
    owner = final.last("USER").value
    made = re.search(rf"install --directory --owner={owner} ([^&]*)", setup.value)
    assert {home, *made[1].split()} == set(final.last("VOLUME").array)
    assert final.last("WORKDIR").value in final.last("VOLUME").array


def test_variables_expand_to_what_was_declared(dockerfile):
    assert expand("${PREFIX}/bin", dockerfile.arguments) == "/opt/sglang_ic/bin"
    with pytest.raises(KeyError):
        expand("${OTHER}", dockerfile.arguments)
