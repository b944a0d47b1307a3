"""Health, metrics, the layer around every request, and what runs beside."""

import asyncio
import hashlib
import hmac
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from licht.service.api import background
from tests.service.api.conftest import Build, Service


def test_alive_and_ready_are_different_things(service: Service) -> None:
    assert service.client.get("/livez", headers={"x-key": ""}).json() == {"status": "alive"}
    response = service.client.get("/readyz")
    assert (response.status_code, response.json()["reason"]) == (503, "no worker is alive")
    service.parts.register.enter("w", "m", "l")
    assert service.client.get("/readyz").json()["reason"] == "the first worker is starting"
    service.parts.register.ready("w")
    assert service.client.get("/readyz").json() == {"status": "ready"}


def test_a_silent_worker_is_not_ready(build: Build) -> None:
    service = build(queue__heartbeat_s=0.01)
    service.parts.register.enter("w", "m", "l")
    service.parts.register.ready("w")
    service.until(lambda: service.client.get("/readyz").status_code == 503)


def test_metrics(service: Service) -> None:
    service.submit(width=1024, height=1024)
    service.submit(prompt="invalid")
    service.work()
    service.submit()
    text = service.client.get("/metrics").text
    for line in (
        'licht_jobs{state="queued"} 1.0',
        'licht_jobs{state="ready"} 1.0',
        'licht_jobs_ended_total{route="flux-2-pro",state="failed"} 1.0',
        'licht_output_megapixels_total{route="flux-2-pro"} 1.048576',
        'licht_credits_total{route="flux-2-pro"} 3.0',
        'licht_steps_total{route="flux-2-pro"} 4.0',
        'licht_queue_seconds_bucket{le="3600.0",route="flux-2-pro"} 2.0',
        'licht_queue_seconds_bucket{le="+Inf",route="flux-2-pro"} 2.0',
        'licht_queue_seconds_count{route="flux-2-pro"} 2.0',
        'licht_run_seconds_count{route="flux-2-pro",state="ready"} 1.0',
        'licht_steps_per_second_count{route="flux-2-pro"} 1.0',
        'licht_stages_total{stage="denoise"} 1.0',
        'licht_workers{condition="ready"} 0.0',
        'licht_http_responses_total{method="POST",route="/v1/flux-2-pro",status="200"} 3.0',
    ):
        assert line in text.splitlines()
    assert "process_resident_memory_bytes" in text
    assert "a red sphere" not in text


def test_names_that_are_not_served(build: Build) -> None:
    service = build(server__public_url="https://flux.example")
    for host, status in (
        ("localhost", 200), ("localhost:8000", 200), ("127.0.0.1:1", 200), ("[::1]:8000", 200), ("FLUX.example", 200),
        ("evil.example", 421), ("localhost.evil.example", 421), ("", 421), ("a b", 421), ("localhost:x", 421),
    ):  # fmt: skip
        assert service.client.get("/livez", headers={"host": host}).status_code == status, host


def test_pages_of_other_origins_have_nothing_done(build: Build) -> None:
    service = build(server__public_url="https://flux.example")
    ours = ("http://localhost:3000", "https://flux.example", "http://127.0.0.1", "http://[::1]:8000")
    for origin in (*ours, "null", "https://evil.example", "file://", "https://flux.example.evil", ""):
        for path in ("/v1/plan", "/mcp", "/v1/images/generations"):
            answer = service.client.post(path, json={"prompt": "a", "n": 11}, headers={"origin": origin})
            assert (answer.status_code == 403) == (origin not in ours), (origin, path, answer.text)
        assert service.client.get("/livez", headers={"origin": origin}).status_code == 200
    everybody = build(server__allowed_hosts=("*",))
    assert everybody.client.post("/v1/plan", json={"prompt": "a"}, headers={"origin": "https://x.y"}).status_code == 200
    assert everybody.client.post("/v1/plan", json={"prompt": "a"}, headers={"origin": "null"}).status_code == 403


def test_bodies_have_an_end(build: Build) -> None:
    service = build(server__max_body_bytes=1000)
    assert service.client.post("/v1/flux-2-pro", json={"prompt": "a" * 2000}).status_code == 413

    def chunks() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(100):
            yield b"a" * 100

    headers = {"content-type": "application/json"}
    response = service.client.post("/v1/flux-2-pro", content=chunks(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "http_413")


def test_every_answer_is_marked(service: Service) -> None:
    for path in ("/livez", "/nothing", "/v1/credits"):
        headers = service.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert len(headers["x-request-id"]) == 32
    assert service.client.get("/livez", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert service.client.get("/livez", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"
    assert "access-control-allow-origin" not in service.client.get("/livez", headers={"origin": "null"}).headers


def test_unknown_paths_and_methods(service: Service) -> None:
    assert service.client.get("/v1/nothing").json()["detail"] == "Not Found"
    assert service.client.get("/v1/flux-2-pro").status_code == 405


def test_a_defect_tells_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: object, _job_id: str) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr("licht.service.queue.store.JobStore.get", broken)
    response = service.client.get("/v1/get_result?id=x")
    assert (response.status_code, response.json()["detail"]) == (500, "Internal error")
    assert "secret" not in response.text


class Hook(ThreadingHTTPServer):
    """Keeps what is delivered; its answers are `statuses`, the last of them from then on."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HookHandler)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.statuses = [204]


class HookHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Hook)
        content = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(({name.lower(): value for name, value in self.headers.items()}, content))
        statuses = self.server.statuses
        self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_webhooks_are_delivered_and_repeated(build: Build, hook: Hook) -> None:
    service = build(
        fetch__allow_networks=["127.0.0.1/32"],
        webhooks__schedule_s=[0, 0.1, 0.1],
        server__public_url="http://localhost",
    )
    hook.statuses = [500, 204]
    told = service.submit(webhook_url=f"http://127.0.0.1:{hook.server_port}/hook", webhook_secret="hush")
    service.work()
    service.until(lambda: service.parts.outbox.counts() == {"delivered": 1})
    (first, content), (second, again) = hook.received
    assert first["webhook-id"] == second["webhook-id"]
    assert first["x-webhook-secret"] == "hush"
    assert first["x-bfl-signature"] == "sha256=" + hmac.new(b"hush", content, hashlib.sha256).hexdigest()
    body = json.loads(again)
    assert (body["id"], body["status"]) == (told["id"], "SUCCESS")
    assert service.client.get(body["result"]["sample"]).status_code == 200


def test_a_webhook_to_this_machine_is_not_sent(build: Build, hook: Hook) -> None:
    service = build(webhooks__schedule_s=[0])
    service.submit(webhook_url=f"http://127.0.0.1:{hook.server_port}/hook")
    service.work()
    service.until(lambda: service.parts.outbox.counts() == {"given_up": 1})
    assert hook.received == []


def test_a_picture_by_url_from_this_machine_is_not_fetched(service: Service, hook: Hook) -> None:
    response = service.client.post(
        "/v1/flux-2-pro", json={"prompt": "a", "input_image": f"http://127.0.0.1:{hook.server_port}/x.png"}
    )
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "input_image"]
    assert hook.received == []


def test_old_jobs_and_their_files_go(build: Build) -> None:
    service = build(storage__keep_days=1e-9)
    told = service.submit()
    service.work()
    asyncio.run(background.purge(service.parts))
    assert service.poll(told["id"])["status"] == "Task not found"
    assert service.parts.storage.size_bytes() == 0


def test_jobs_of_dead_workers_are_taken_back(build: Build) -> None:
    service = build(queue__lease_s=0.1, queue__heartbeat_s=0.05)
    told = service.submit()
    assert service.parts.store.leases.claim("dead") is not None
    service.until(lambda: service.parts.store.get(told["id"]).deaths == 1)


def test_the_api_needs_no_torch() -> None:
    program = "import sys, licht.service.api.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
