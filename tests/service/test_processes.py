"""`licht serve` as an operator starts it, with a fake engine: start, stop, and survive kills."""

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks import serve_load
from benchmarks.serve_load import Options
from tests.service.conftest import PATIENCE_S
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
        end = time.monotonic() + PATIENCE_S
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
    end = time.monotonic() + PATIENCE_S
    while [pid for pid in children if Path(f"/proc/{pid}").exists() and "Z" not in state(pid)]:
        assert time.monotonic() < end, "processes were left behind"
        time.sleep(0.05)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


@pytest.fixture(params=["sqlite", "postgresql"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Options:
    """Short versions of what benchmarks/serve_load.py measures, on both databases."""
    url: str | None = None
    if request.param == "postgresql":
        name = f"load_{uuid.uuid4().hex}"
        server: str = request.getfixturevalue("postgres")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = server.replace("/postgres?", f"/{name}?")
        assert name in url
    return Options(tmp_path, url, rate=20, seconds=4, jobs=300, kill_s=8, kill_every_s=1, least_kills=3)


@pytest.mark.slow
def test_kills_lose_nothing_and_repeat_nothing(options: Options) -> None:
    """API and workers are killed about every second under load: every accepted job ends once, and is told once."""
    found = serve_load.kill(options)
    assert found["kills"] >= 3
    assert found["accepted"] >= 3
    assert found["states"] == {"ready": found["accepted"]}
    assert found["jobs_told"] == found["accepted"]
    wrong = ("lost", "not_asked_for", "twice", "charged_wrongly", "unmetered", "webhooks_with_two_ids")
    assert {name: found[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert found["unexpected_answers"] == []
    # a busy machine needs many times the five seconds of the measured figure to start a process
    assert found["longest_time_between_starts_s"] < found["lease_s"] + 2 * PATIENCE_S


@pytest.mark.slow
def test_many_jobs_are_drawn_in_the_same_memory(options: Options) -> None:
    found = serve_load.drain(options)
    assert (found["ready"], found["same_processes"]) == (300, True)
    assert found["growth_percent"] < 5


@pytest.mark.slow
def test_submits_at_a_steady_rate(options: Options) -> None:
    """The figure itself is measured on a quiet machine; here only that nothing queues up for long."""
    found = serve_load.submit(options)
    assert found["ready"] == 90
    assert found["p50_ms"] < 10 * found["alone_ms"]


@pytest.mark.slow
def test_a_short_job_does_not_wait_for_fifty_long_ones(tmp_path: Path) -> None:
    found = serve_load.fair(Options(tmp_path, None))
    # the one that was in hand was begun before; a busy machine needs longer for it, but begins no other
    assert found["started_before_it"] <= 1


@pytest.mark.slow
def test_stopping_finishes_or_hands_back_within_its_limit(tmp_path: Path) -> None:
    # as long as is needed to finish, and to hand back (2.4 s after three), on a busy machine too
    found = serve_load.stopping(Options(tmp_path, None, drain_s=(60.0, 6.0)))
    finished, back = found["finished"], found["handed_back"]
    assert (finished["state"], finished["exit_code"]) == ("ready", 0)
    assert (back["state"], back["deaths"], back["exit_code"]) == ("queued", 0, 0)
    # the job would have taken nine seconds; that it went back is what shows the limit, the rest is the machine
    assert back["took_s"] < back["limit_s"] + PATIENCE_S


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "licht", *arguments],
        capture_output=True, text=True, check=False, timeout=2 * PATIENCE_S, env=environment(**settings),
    )  # fmt: skip


def test_mistakes_are_one_line_and_end_it(tmp_path: Path) -> None:
    for settings in ({"worker__engine": "nothing.here:x"}, {"server__nonsense": "1"}):
        ended = run("serve", "--data", str(tmp_path / "data"), "--port", "0", **settings)
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr
        assert "error: " in ended.stderr
