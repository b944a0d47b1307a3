"""Prose into a structured prompt, through a stand-in for the language model."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.service.api.conftest import Build

PROSE = 'a red sphere under a sign that says "HELLO"'
GOOD = {"subjects": [{"type": "sphere", "colors": ["red"]}], "texts": [{"content": "HELLO", "place": "sign"}]}

Answering = Callable[..., str]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """Starts an endpoint that gives these answers, one after the other; returns its address."""
    servers: list[ThreadingHTTPServer] = []

    def start(*answers: str) -> str:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                data = json.dumps({"choices": [{"message": {"content": left.pop(0)}}]}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_prose_becomes_structure(build: Build, answering: Answering) -> None:
    url = answering(f"Here you are:\n```json\n{json.dumps(GOOD)}\n```")
    answer = build(upsampling__url=url).client.post("/v1/prompts/structured", json={"prompt": PROSE})
    assert (answer.status_code, answer.json()) == (200, {"prompt": GOOD})


def test_lost_words_are_asked_for_again(build: Build, answering: Answering) -> None:
    lost = json.dumps({**GOOD, "texts": [{"content": "HALLO"}]})
    service = build(upsampling__url=answering(lost, json.dumps(GOOD), lost, "no JSON at all"))
    assert service.client.post("/v1/prompts/structured", json={"prompt": PROSE}).json() == {"prompt": GOOD}
    answer = service.client.post("/v1/prompts/structured", json={"prompt": PROSE})
    assert (answer.status_code, answer.json()["code"]) == (503, "not_available")
    assert "holds no JSON object" in answer.json()["message"]


def test_without_a_language_model_it_is_said(build: Build) -> None:
    answer = build().client.post("/v1/prompts/structured", json={"prompt": PROSE})
    assert answer.status_code == 503
    assert "no language model is configured here" in answer.json()["message"]


def test_one_that_does_not_answer(build: Build) -> None:
    service = build(upsampling__url="http://127.0.0.1:1/v1")
    answer = service.client.post("/v1/prompts/structured", json={"prompt": PROSE})
    assert (answer.status_code, "127.0.0.1" in answer.text) == (503, False)
    assert service.client.get("/v1/about").json()["upsampling"] is True
