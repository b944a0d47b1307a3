"""A whole service in one process: the application, and a worker in a thread."""

import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from licht.safety.examine import examine
from licht.safety.tools import Tools
from licht.service.api.app import create_app
from licht.service.api.parts import Parts
from licht.service.keys import Scope
from licht.service.queue.previews import PreviewRow
from licht.service.settings import load_settings
from licht.service.worker.looking import Looker
from licht.service.worker.loop import Worker, WorkerLimits
from tests.service.conftest import PATIENCE_S
from tests.service.fakes import FakeDrawer

HOST = "http://localhost"


@dataclass
class Service:
    """The service under test, with a client that sends a key."""

    app: FastAPI
    client: TestClient
    parts: Parts
    drawer: FakeDrawer
    worker: Worker
    key: str
    key_id: str

    def submit(self, route: str = "flux-2-pro", **body: Any) -> dict[str, Any]:  # noqa: ANN401 - a JSON body
        response = self.client.post(f"/v1/{route}", json={"prompt": "a red sphere", "width": 64, "height": 64, **body})
        assert response.status_code == 200, response.text
        told: dict[str, Any] = response.json()
        return told

    def work(self) -> None:
        """Do everything that waits."""
        while self.worker.work_once():
            pass

    def poll(self, job_id: str) -> dict[str, Any]:
        told: dict[str, Any] = self.client.get("/v1/get_result", params={"id": job_id}).json()
        return told

    def until(self, true: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        end = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.01)


Build = Callable[..., Service]


@pytest.fixture
def build(tmp_path: Path, migrated_sqlite: Path) -> Iterator[Build]:
    """Builds a service with settings by their dotted names."""
    clients: list[TestClient] = []
    (tmp_path / "data").mkdir()
    shutil.copyfile(migrated_sqlite, tmp_path / "data" / "licht.sqlite3")

    def make(**overrides: Any) -> Service:  # noqa: ANN401 - settings
        named = {name.replace("__", "."): value for name, value in overrides.items()}
        settings = load_settings(None, {"data": str(tmp_path / "data"), **named}, {})
        app = create_app(settings)
        parts: Parts = app.state.parts
        created = parts.keys.create("tests", (Scope.GENERATE, Scope.METRICS))
        client = TestClient(app, base_url=HOST, headers={"x-key": created.text}, raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        drawer = FakeDrawer()
        worker = Worker(parts.store, parts.storage, drawer, WorkerLimits(heartbeat_s=0.05, drain_s=0.2, idle_s=0.05))
        return Service(app, client, parts, drawer, worker, created.text, created.key.id)

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def service(build: Build) -> Service:
    return build()


@pytest.fixture
def running(service: Service) -> Iterator[Service]:
    """The service with its worker at work."""
    thread = threading.Thread(target=service.worker.run)
    thread.start()
    yield service
    service.worker.stop()
    thread.join()


@pytest.fixture
def looking(build: Build) -> Iterator[Callable[[Service], None]]:
    """Has pictures looked at beside a service, as its workers do."""
    del build  # its services end after the threads
    stopping = threading.Event()
    threads: list[threading.Thread] = []

    def start(service: Service) -> None:
        tools = Tools()
        service.parts.register.enter("looker", "fake", "Apache-2.0")

        def seen(data: bytes) -> dict[str, Any]:
            return examine(data, tools.known_watermark(), tools.anchors() or None, registry=tools.registry)

        looker = Looker(service.parts.looks, service.parts.storage, seen, "looker")
        threads.append(threading.Thread(target=looker.run, args=(stopping,)))
        threads[-1].start()

    yield start
    stopping.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def in_step(running: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The same; a step of the prompt "held" begins when somebody has looked at the preview of the one before."""
    looked_at: queue.Queue[int] = queue.Queue()
    get = running.parts.previews.get

    def watched(job_id: str, after: int | None = None) -> PreviewRow | None:
        row = get(job_id, after)
        if row is not None:
            looked_at.put(row.step)
        return row

    def hold(step: int) -> None:
        assert step == 1 or looked_at.get(timeout=PATIENCE_S) == step - 1

    monkeypatch.setattr(running.parts.previews, "get", watched)
    running.drawer.hold = hold
    return running
