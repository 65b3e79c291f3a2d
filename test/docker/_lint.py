"""What a linter of Dockerfiles would say: one function per rule, each yields complaints.

The rules are those of hadolint that fit files like ours, without its binary: bases with a tag,
packages installed without leftovers, exec forms, an unprivileged user, names that are declared.
"""

import re
import subprocess
from collections.abc import Iterator

from _dockerfile import VARIABLE, Dockerfile, expand

# Set by the base image, or by Docker for every build.
GIVEN = {"PATH"}
# What a final stage may run: it needs root, and nothing but the base image.
SYSTEM_PROGRAMS = {"apt-get", "rm", "useradd", "install", "echo", "ldconfig"}


def bases(file: Dockerfile) -> Iterator[str]:
    """Every base has a tag that names a version, or is an earlier stage."""
    names: set[str | None] = set()
    for stage in file.stages:
        base = expand(stage.base, file.arguments)
        if base not in names and not re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", base):
            yield f"base {base!r} has no tag with a version"
        names.add(stage.name)


def names(file: Dockerfile) -> Iterator[str]:
    """A `${NAME}` is an ARG or ENV of its own stage: those before FROM are not seen inside."""
    for stage in file.stages:
        known = set(GIVEN)
        for one in stage.instructions:
            for used in set(VARIABLE.findall(one.value)) - known:
                yield f"line {one.line}: ${{{used}}} is not declared in this stage"
            if one.keyword in ("ARG", "ENV"):
                known |= set(one.pairs)


def copies(file: Dockerfile) -> Iterator[str]:
    """A relative target follows a WORKDIR; `--from` names an earlier stage."""
    earlier: set[str | None] = set()
    for stage in file.stages:
        folder = False
        for one in stage.instructions:
            folder = folder or one.keyword == "WORKDIR"
            if one.keyword == "COPY":
                if not folder and not one.words[-1].startswith(("/", "${PREFIX}")):
                    yield f"line {one.line}: relative target without a WORKDIR"
                if one.flags.get("from", next(iter(earlier), None)) not in earlier | {None}:
                    yield f"line {one.line}: --from={one.flags['from']} is no earlier stage"
        earlier.add(stage.name)


def commands(file: Dockerfile) -> Iterator[str]:
    """RUN steps are valid shell, fail when a part fails, and use WORKDIR instead of cd."""
    for stage in file.stages:
        previous = ""
        for one in stage.instructions:
            if one.keyword == "RUN":
                done = subprocess.run(["sh", "-n", "-c", one.value], capture_output=True, text=True)
                if done.returncode:
                    yield f"line {one.line}: {done.stderr.strip()}"
                if re.search(r"(^|&& )(cd|sudo) ", one.value):
                    yield f"line {one.line}: cd or sudo"
                if re.search(r";|\||(?<!&)&(?!&)", one.value):
                    yield f"line {one.line}: a part that fails does not end the build: use &&"
                if previous == "RUN":
                    yield f"line {one.line}: a second RUN in a row"
            previous = one.keyword


def packages(file: Dockerfile) -> Iterator[str]:
    """apt-get: lists are fresh and deleted, nothing recommended, no question. pip: no cache."""
    for stage in file.stages:
        for one in stage.all("RUN"):
            if "apt-get install" in one.value:
                for part in (
                    "apt-get update && apt-get install",
                    "--yes",
                    "--no-install-recommends",
                    "rm -rf /var/lib/apt/lists/*",
                ):
                    if part not in one.value:
                        yield f"line {one.line}: apt-get install without {part!r}"
            if "-m pip" in one.value:
                cached = "--no-cache-dir" in one.value or any(
                    arg.pairs.get("PIP_NO_CACHE_DIR") == "1" for arg in stage.all("ARG")
                )
                if not cached:
                    yield f"line {one.line}: pip's cache stays in the layer"


def runtime(file: Dockerfile) -> Iterator[str]:
    """The final stage: exec forms, an unprivileged user, nothing built in it."""
    final = file.final
    for keyword in ("ENTRYPOINT", "VOLUME", "HEALTHCHECK"):
        for one in final.all(keyword):
            if one.array is None:
                yield f"line {one.line}: {keyword} is no JSON array"
    for keyword in ("ENTRYPOINT", "HEALTHCHECK", "USER", "WORKDIR", "EXPOSE", "STOPSIGNAL"):
        if len(final.all(keyword)) != 1:
            yield f"{len(final.all(keyword))} {keyword} in the final stage"
    if final.all("USER") and final.last("USER").value in ("root", "0"):
        yield "runs as root"
    seen = [one.keyword for one in final.instructions]
    if "USER" in seen and {"RUN", "COPY"} & set(seen[seen.index("USER") :]):
        yield "RUN or COPY after USER: the user could change what it made"
    for one in final.all("RUN"):
        used = {part.split()[0] for part in one.value.split(" && ")}
        if used - SYSTEM_PROGRAMS:
            yield f"line {one.line}: {used - SYSTEM_PROGRAMS} belongs into the build stage"
    for one in final.all("WORKDIR"):
        if not one.value.startswith("/"):
            yield f"line {one.line}: WORKDIR is relative"


RULES = (bases, names, copies, commands, packages, runtime)


def lint(file: Dockerfile) -> list[str]:
    return [complaint for rule in RULES for complaint in rule(file)]
