"""SIGTERM while calls wait: what is in hand is finished, everybody else is told, and the rest is answered meanwhile."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from licht.service.database.connect import Database
from licht.service.database.tables import JOBS
from tests.service.conftest import PATIENCE_S
from tests.service.serving import Served, start, stop

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes as Linux shows them"),
]
IMAGES = "/v1/images/generations"
SMALL = {"width": 64, "height": 64}


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[tuple[Served, Database]]:
    served = start(folder / "data", **settings)
    database = Database(f"sqlite:///{folder / 'data' / 'licht.sqlite3'}")
    try:
        served.until_ready()
        yield served, database
    finally:
        if served.process.poll() is None:
            stop(served)
        database.close()


def states(database: Database) -> dict[str, str]:
    """The state of every job by its prompt."""
    with database.read() as connection:
        rows = connection.execute(select(JOBS.c.task, JOBS.c.state)).all()
    return {json.loads(task)["prompt"]: state for task, state in rows}


def until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.05)):
        if true():
            return
        pause.wait(0.05)
    raise AssertionError("it did not happen in time")


def lines(served: Served, method: str, path: str, **request: Any) -> list[str]:  # noqa: ANN401 - httpx's
    """What a stream tells until it ends."""
    with served.client() as client, client.stream(method, path, **request) as stream:
        assert stream.status_code == 200
        return [line for line in stream.iter_lines() if line]


def use_tool(served: Served, prompt: str) -> dict[str, Any]:
    call = {"name": "generate_image", "arguments": {"prompt": prompt, **SMALL}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    headers = {"accept": "application/json, text/event-stream"}
    with served.client() as client:
        told: dict[str, Any] = client.post("/mcp", json=message, headers=headers).json()
    return told


@pytest.mark.parametrize("policy", ["cancel", "finish"])
def test_calls_that_wait_are_told_in_their_own_words(tmp_path: Path, policy: str) -> None:
    with serving(tmp_path, server__drain_s="6", queue__on_disconnect=policy) as (served, database):
        with served.client() as client, ThreadPoolExecutor(8) as pool:

            def drawn(prompt: str) -> "Future[httpx.Response]":
                body = {"prompt": prompt, "size": "64x64", "steps": 50}
                return pool.submit(lambda: client.post(IMAGES, json=body))

            in_hand = drawn("slow 1")
            until(lambda: states(database).get("slow 1") == "running")
            waiting = drawn("waits")
            streamed = {"json": {"prompt": "streams", "size": "64x64", "stream": True, "partial_images": 1}}
            streaming = pool.submit(lines, served, "POST", IMAGES, **streamed)
            using = pool.submit(use_tool, served, "is used")
            job = client.post("/v1/jobs", json={"prompt": "is followed", **SMALL}).json()["id"]
            following = pool.submit(lines, served, "GET", f"/v1/jobs/{job}/events")
            until(lambda: len(states(database)) == 5)

            served.process.terminate()
            told = waiting.result(PATIENCE_S)
            assert (told.status_code, told.headers["retry-after"], told.headers["connection"]) == (503, "10", "close")
            assert (told.json()["error"]["type"], told.json()["error"]["code"]) == ("server_error", "not_available")
            error = json.loads(streaming.result(PATIENCE_S)[-1].removeprefix("data: "))["error"]
            assert "stopping" in error["message"]
            result = using.result(PATIENCE_S)["result"]
            assert result["isError"]
            assert "get_result" in result["content"][0]["text"]
            assert following.result(PATIENCE_S)[-2:][0] == "event: error"
            # meanwhile a picture is in hand: whoever asks is answered, and nothing new is taken
            assert client.get("/livez").json() == {"status": "alive"}
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["reason"]) == (503, "the service is stopping")
            refused = client.post("/v1/flux-2-pro", json={"prompt": "late", **SMALL})
            assert (refused.status_code, refused.json()["code"]) == (503, "stopping")
            assert client.get(f"/v1/get_result?id={job}").json()["status"] == "Pending"
            assert not in_hand.done()
            # it takes too long; it goes back in time, and its caller is told
            assert in_hand.result(PATIENCE_S).status_code == 503
        assert served.process.wait(PATIENCE_S) == 0
        gone = "cancelled" if policy == "cancel" else "queued"
        expected = dict.fromkeys(("slow 1", "waits", "streams"), gone) | {"is used": "queued", "is followed": "queued"}
        assert states(database) == expected


def test_a_picture_in_hand_reaches_its_caller(tmp_path: Path) -> None:
    with serving(tmp_path, server__drain_s="60") as (served, database):
        with served.client() as client, ThreadPoolExecutor(1) as pool:
            body = {"prompt": "slow 0.5", "size": "64x64", "steps": 4}
            call = pool.submit(lambda: client.post(IMAGES, json=body))
            until(lambda: states(database).get("slow 0.5") == "running")
            served.process.terminate()
            told = call.result(PATIENCE_S)
            assert told.status_code == 200
            assert told.json()["data"][0]["b64_json"]
        assert served.process.wait(PATIENCE_S) == 0
        assert states(database) == {"slow 0.5": "ready"}
