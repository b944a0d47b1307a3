"""`licht serve` as an operator starts it, with a fake engine: start, stop, and survive kills."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from licht.service.database.connect import Database
from licht.service.database.tables import JOBS, METERING, WEBHOOKS
from tests.service.serving import Served, environment, start, stop

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes as Linux shows them")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    running = start(
        tmp_path / "data",
        queue__lease_s="2", queue__heartbeat_s="0.5", keys__active_limit="1000", queue__max_deaths="20",
        webhooks__schedule_s="0", fetch__ports="9",
    )  # fmt: skip
    running.until_ready()
    yield running
    if running.process.poll() is None:
        stop(running)


def body() -> dict[str, Any]:
    return {"prompt": "slow 0.005", "width": 64, "height": 64, "webhook_url": "https://192.0.2.1:9/"}


def test_a_picture_over_the_protocol_and_an_orderly_end(served: Served) -> None:
    with served.client() as client:
        told = client.post("/v1/flux-2-pro", json=body()).json()
        end = time.monotonic() + 10
        while (polled := client.get(told["polling_url"]).json())["status"] == "Pending":
            assert time.monotonic() < end
            time.sleep(0.05)
        assert polled["status"] == "Ready"
        assert client.get(polled["result"]["sample"]).content[:2] == b"\xff\xd8"
    children = served.children()
    assert len(children) == 2
    assert stop(served) == 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    again = start(served.data)
    assert again.key == served.key
    assert stop(again) == 0
    assert (served.data / "first-key").stat().st_mode & 0o77 == 0


def test_when_the_supervisor_is_killed_its_processes_end(served: Served) -> None:
    children = served.children()
    served.process.kill()
    served.process.wait()
    end = time.monotonic() + 15
    while [pid for pid in children if Path(f"/proc/{pid}").exists() and "Z" not in state(pid)]:
        assert time.monotonic() < end, "processes were left behind"
        time.sleep(0.05)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


@pytest.mark.slow
def test_kills_lose_nothing_and_repeat_nothing(served: Served) -> None:
    """API and workers are killed about every second under load: every accepted job ends once."""
    accepted, kills = set(), 0
    end, next_kill = time.monotonic() + 10, time.monotonic() + 1
    with served.client() as client:
        while time.monotonic() < end:
            token = uuid.uuid4().hex
            while True:  # as a careful client does: the same token until there is an answer
                try:
                    response = client.post("/v1/flux-2-pro", json=body(), headers={"Idempotency-Key": token})
                except httpx.TransportError:
                    continue
                if response.status_code == 200:
                    accepted.add(response.json()["id"])
                    break
                assert response.status_code == 503, response.text
            if time.monotonic() > next_kill:
                for pid in random.sample(served.children(), k=random.randint(1, len(served.children()))):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
                next_kill = time.monotonic() + random.uniform(0.5, 1.5)
            time.sleep(0.02)
    assert kills >= 5
    database = Database(f"sqlite:///{served.data / 'licht.sqlite3'}")
    deadline = time.monotonic() + 40
    while True:
        with database.read() as connection:
            counts = connection.execute(select(JOBS.c.state, func.count()).group_by(JOBS.c.state)).all()
        states = {str(name): int(count) for name, count in counts}
        if not states.keys() & {"queued", "running"}:
            break
        assert time.monotonic() < deadline, f"{states}\n{served.errors.read_text()}"
        time.sleep(0.1)
    with database.read() as connection:
        jobs = set(connection.execute(select(JOBS.c.id)).scalars())
        metered = list(connection.execute(select(METERING.c.job_id)).scalars())
        hooked = list(connection.execute(select(WEBHOOKS.c.job_id)).scalars())
    database.close()
    assert states == {"ready": len(accepted)}
    assert jobs == accepted
    assert sorted(metered) == sorted(hooked) == sorted(accepted)


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "licht", *arguments],
        capture_output=True, text=True, check=False, timeout=60, env=environment(**settings),
    )  # fmt: skip


def test_mistakes_are_one_line_and_end_it(tmp_path: Path) -> None:
    for settings in ({"worker__engine": "nothing.here:x"}, {"server__nonsense": "1"}):
        ended = run("serve", "--data", str(tmp_path / "data"), "--port", "0", **settings)
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr
        assert "error: " in ended.stderr
