"""What the tests of the images share: the parsed files."""

import sys
from pathlib import Path

import pytest

# pytest's importlib mode puts no test directory on the path.
sys.path.append(str(Path(__file__).parent))

from _dockerfile import parse  # noqa: E402

FOLDER = Path(__file__).parents[2] / "docker"


@pytest.fixture(params=["Dockerfile", "Dockerfile.cpu"])
def dockerfile(request):
    return parse((FOLDER / request.param).read_text())


@pytest.fixture
def cpu():
    return parse((FOLDER / "Dockerfile.cpu").read_text())


@pytest.fixture
def cuda():
    return parse((FOLDER / "Dockerfile").read_text())
