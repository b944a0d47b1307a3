"""Traces from a request to the stages of its picture, and logs that can be followed."""

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from licht.core.errors import InvalidSettings
from licht.service.api.app import create_app
from licht.service.api.parts import open_parts
from licht.service.logs import JsonLines
from licht.service.settings import load_settings
from licht.service.telemetry import TRACEPARENT, open_telemetry
from licht.service.worker.loop import Worker
from tests.service.fakes import FakeDrawer

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """An OTLP endpoint that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        outer.spans += list(scope.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *_: object) -> None:
                del format

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def named(self, name: str) -> Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    collecting = Collector()
    yield collecting
    collecting.server.shutdown()
    collecting.server.server_close()


def attributes(span: Span) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


def test_a_trace_goes_from_the_request_to_the_stages(collector: Collector, tmp_path: Path) -> None:
    settings = load_settings(None, {"data": str(tmp_path), "telemetry.endpoint": collector.url}, {})
    parts = open_parts(settings)
    key = parts.keys.create("t").text
    worker_telemetry = open_telemetry(collector.url, "worker")
    worker = Worker(parts.store, parts.storage, FakeDrawer(), telemetry=worker_telemetry)
    with TestClient(create_app(settings, parts), base_url="http://localhost") as client:
        headers = {"x-key": key, "traceparent": CALLER}
        told = client.post("/v1/flux-2-pro?secret=hush", json={"prompt": "a private cube"}, headers=headers).json()
        parts.register.enter(worker.id, "fake", "free")
        assert worker.work_once()
        assert client.get("/v1/nothing").status_code in (403, 404)
    worker_telemetry.close()
    request, drawing, denoise = (collector.named(name) for name in ("POST /v1/flux-2-pro", "draw", "denoise"))
    assert request.trace_id.hex() == CALLER.split("-")[1]
    assert request.parent_span_id.hex() == CALLER.split("-")[2]
    assert (drawing.trace_id, drawing.parent_span_id) == (request.trace_id, request.span_id)
    assert (denoise.trace_id, denoise.parent_span_id) == (request.trace_id, drawing.span_id)
    assert attributes(drawing)["licht.job.id"] == told["id"]
    assert attributes(drawing)["gen_ai.request.model"] == "fake"
    assert drawing.start_time_unix_nano - 10**6 <= denoise.start_time_unix_nano <= denoise.end_time_unix_nano
    sent = b"".join(span.SerializeToString() for span in collector.spans)
    for private in (b"hush", b"private cube", key.encode()):
        assert private not in sent


def test_without_an_endpoint_nothing_is_opened() -> None:
    telemetry = open_telemetry(None, "api")
    with telemetry.span("x", "server", CALLER) as span:
        span.set("a", 1)
        assert TRACEPARENT.get() is None
    telemetry.close()


def test_a_missing_exporter_is_a_mistake_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidSettings, match=r"lichtung\[telemetry\]"):
        open_telemetry("http://localhost:4318/v1/traces", "api")


@pytest.mark.parametrize("prompts", [False, True])
def test_logs_name_request_and_job_and_prompts_only_if_wanted(tmp_path: Path, prompts: bool) -> None:
    settings = load_settings(None, {"data": str(tmp_path), "logging.prompts": prompts}, {})
    parts = open_parts(settings)
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines("api"))
    logger = logging.getLogger("licht")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel("DEBUG")
    try:
        with TestClient(create_app(settings, parts), base_url="http://localhost") as client:
            headers = {"x-key": parts.keys.create("t").text, "x-request-id": "my-request"}
            told = client.post("/v1/flux-2-pro", json={"prompt": "a private cube"}, headers=headers).json()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    (accepted,) = [line for line in lines if line["event"] == "accepted"]
    assert (accepted["job"], accepted["request_id"], accepted["process"]) == (told["id"], "my-request", "api")
    assert ("a private cube" in written.getvalue()) is prompts
    (answered,) = [line for line in lines if line["event"] == "request"]
    assert (answered["route"], answered["status"], answered["request_id"]) == ("/v1/flux-2-pro", 200, "my-request")
