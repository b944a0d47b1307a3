"""`licht serve` as an operator starts it: processes of its own, a fake engine unless a test says otherwise."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.service.conftest import PATIENCE_S
from tests.support.processes import PYTHONPATH


@dataclass
class Served:
    """A running `licht serve`."""

    process: subprocess.Popen[str]
    url: str
    key: str
    data: Path
    errors: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"x-key": self.key}, timeout=PATIENCE_S, trust_env=False)

    def children(self) -> list[int]:
        """The processes that the supervisor runs."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def until_ready(self, timeout_s: float = 2 * PATIENCE_S) -> None:
        end = time.monotonic() + timeout_s
        with self.client() as client:
            while True:
                try:
                    if client.get("/readyz").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                assert time.monotonic() < end, self.errors.read_text()
                time.sleep(0.05)


def environment(**settings: str) -> dict[str, str]:
    """The environment of a process; an empty setting is none, so `worker__engine=""` is the built-in model."""
    names = {f"LICHT_SERVICE__{name.upper()}": value for name, value in settings.items()}
    fake = {"PYTHONPATH": PYTHONPATH, "LICHT_SERVICE__WORKER__ENGINE": "tests.service.fakes:open_fake"}
    return {name: value for name, value in {**os.environ, **fake, **names}.items() if value}


def start(data: Path, **settings: str) -> Served:
    errors = data.parent / "errors.log"
    with errors.open("a", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "licht", "serve", "--data", str(data), "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env=environment(**settings),
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, errors.read_text()
    told: dict[str, Any] = json.loads(line)
    return Served(process, told["url"], told["key"], data, errors)


def stop(served: Served) -> int:
    served.process.terminate()
    code = served.process.wait(PATIENCE_S)
    if served.process.stdout is not None:
        served.process.stdout.close()
    return code
