"""One `licht serve` with the built-in model for all clients, and the SDK that needs a place of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.serving import Served, start, stop
from tests.support.processes import ROOT

REQUIREMENTS = Path(__file__).parent / "blackforest.txt"


@pytest.fixture(scope="package")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A running service as a new user has it; it ends with the last client, and takes nothing from the tests after it."""
    running = start(tmp_path_factory.mktemp("live") / "data", worker__engine="")
    running.until_ready(120)
    yield running
    stop(running)


@pytest.fixture(scope="session")
def blackforest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with BFL's SDK, to be put on the path of a process of its own."""
    folder = tmp_path_factory.mktemp("blackforest")
    command = [str(ROOT / "scripts" / "uv"), "pip", "install", "--quiet", "--python", sys.executable]
    command += ["--target", str(folder), "--no-deps", "--require-hashes", "-r", str(REQUIREMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        reason = f"BFL's SDK cannot be installed: {done.stderr.strip()[-300:]}"
        # where everything has to be tried, its absence is a failure
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return folder
