import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import licht
from licht.client import Client
from licht.core.errors import (
    EndpointFailed,
    InsufficientCredits,
    InvalidImage,
    InvalidOutput,
    InvalidPrompt,
    InvalidRequest,
    LichtError,
    NotAuthenticated,
    OutputExists,
    OutputFailed,
    Refused,
    TooManyJobs,
)
from licht.core.request import Role
from tests.support.pictures import encoded, image, reference, write_image

PNG = encoded(image(64, 64), "PNG")


class Endpoint:
    """A stand-in that speaks the BFL protocol. `submit` and `poll` may be replaced by what a test needs."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.seen: list[tuple[str, str, str | None]] = []
        self.polls = 0
        self.url = ""
        self.sample = PNG
        self.submit: Callable[[], tuple[int, Any]] = self.accepted
        self.poll: Callable[[], tuple[int, Any]] = self.ready_at_the_second_time
        self.delay_s = 0.0
        self.drips = False

    def accepted(self) -> tuple[int, Any]:
        number = len(self.bodies)
        return 200, {"id": f"job-{number}", "polling_url": f"{self.url}/v1/get_result?id={number}", "cost": 1.4}

    def ready(self) -> tuple[int, Any]:
        sample = f"{self.url.replace('127.0.0.1', 'localhost')}/sample.png"
        return 200, {"id": "x", "status": "Ready", "result": {"sample": sample, "prompt": "used", "seed": 11}}

    def ready_at_the_second_time(self) -> tuple[int, Any]:
        self.polls += 1
        return self.ready() if self.polls % 2 == 0 else (200, {"id": "x", "status": "Pending", "progress": 0.5})


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            made.seen.append(("POST", self.path, self.headers.get("x-key")))
            self._send(*made.submit())

        def do_GET(self) -> None:
            made.seen.append(("GET", self.path, self.headers.get("x-key")))
            self._send(*((200, made.sample) if self.path.startswith("/sample") else made.poll()))

        def _send(self, status: int, body: Any) -> None:  # noqa: ANN401 - JSON, or bytes as they are
            time.sleep(made.delay_s)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Retry-After", "0.05")
            self.end_headers()
            for at in range(0, len(data), 1 if made.drips else max(len(data), 1)):
                time.sleep(0.05 if made.drips else 0.0)
                with suppress(OSError):  # the caller has gone
                    self.wfile.write(data[at : at + 1] if made.drips else data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[Client]:
    with Client(endpoint.url, key="secret", poll_s=0.01, timeout_s=60) as made:
        yield made


def test_the_same_call_draws_elsewhere(client: Client, endpoint: Endpoint, tmp_path: Path) -> None:
    results = client.generate("a cat", seed=3, num=2, size=(128, 64), steps=4, guidance=2.5)
    assert [body["seed"] for body in endpoint.bodies] == [3, 4]
    common = {"prompt": "a cat", "output_format": "png", "width": 128, "height": 64, "steps": 4, "guidance": 2.5}
    assert endpoint.bodies[0] == common | {"seed": 3}
    assert [(result.seed, result.prompt, result.cost_credits) for result in results] == [(11, "used", 1.4)] * 2
    assert results[0].image.size == (results[0].width, results[0].height) == (64, 64)
    path = results[0].save(tmp_path / "a.png")
    assert path.read_bytes() == PNG
    with pytest.raises(OutputExists):
        results[0].save(path)
    results[0].save(path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(InvalidOutput, match=r"save it as \.png"):
        results[0].save(tmp_path / "a.jpg")
    with pytest.raises(OutputFailed):
        results[0].save(tmp_path / "none" / "a.png")


def test_the_key_goes_to_the_endpoint_alone(client: Client, endpoint: Endpoint) -> None:
    client.generate("a cat")
    assert {(path.partition("?")[0], key) for _, path, key in endpoint.seen} == {
        ("/v1/flux-2-klein-4b", "secret"),
        ("/v1/get_result", "secret"),
        ("/sample.png", None),
    }


def test_references_go_along_as_they_are_and_roles_are_worded(
    client: Client, endpoint: Endpoint, tmp_path: Path
) -> None:
    write_image(tmp_path / "a.jpg")
    sources: list[Any] = [tmp_path / "a.jpg", image(64, 64), reference(64, 64)]
    client.generate("@image2 again", images=sources, roles=["style", None, None])
    body = endpoint.bodies[0]
    assert body["prompt"] == "image 2 again. Take only the style from image 1, not what it shows."
    assert base64.b64decode(body["input_image"]) == (tmp_path / "a.jpg").read_bytes()
    for name in ("input_image_2", "input_image_3"):
        assert base64.b64decode(body[name]).startswith(b"\x89PNG")
    client.generate("x", images=str(tmp_path / "a.jpg"))
    assert "input_image" in endpoint.bodies[1]
    assert "input_image_2" not in endpoint.bodies[1]


def test_it_waits_where_there_are_too_many_jobs(client: Client, endpoint: Endpoint) -> None:
    answers = [(429, {"detail": "too many"}), (429, {}), None]
    endpoint.submit = lambda: answers.pop(0) or endpoint.accepted()
    assert len(client.generate("x")) == 1
    endpoint.submit = lambda: (429, {"detail": "24 active tasks"})
    with pytest.raises(TooManyJobs, match="24 active tasks"):
        client.generate("x")


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (403, {"detail": "Not authenticated"}, NotAuthenticated, "the endpoint says: Not authenticated"),
        (402, {"detail": "Insufficient credits"}, InsufficientCredits, "Insufficient credits"),
        (422, {"detail": [{"loc": ["body"], "msg": "Field required"}]}, InvalidRequest, "Field required"),
        (500, {"message": "broken"}, EndpointFailed, "HTTP 500 and broken"),
        (200, b"<html>", EndpointFailed, "HTTP 200 and no JSON object"),
        (200, [1], EndpointFailed, "no JSON object"),
        (200, {"id": 3}, EndpointFailed, "without an id and a polling_url"),
        (200, b"x" * 5 * 2**20, EndpointFailed, "is larger than"),
        (302, {}, EndpointFailed, "HTTP 302"),
    ],
)
def test_what_a_submission_is_refused_with(
    client: Client, endpoint: Endpoint, status: int, body: object, error: type[LichtError], message: str
) -> None:
    endpoint.submit = lambda: (status, body)
    with pytest.raises(error, match=message):
        client.generate("x")


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (
            200,
            {"status": "Request Moderated", "details": {"Moderation Reasons": ["violence"]}},
            Refused,
            "Moderated: violence",
        ),
        (200, {"status": "Content Moderated", "details": None}, Refused, "no reason is given"),
        (200, {"status": "Error", "details": {"error": "no memory"}}, EndpointFailed, "'Error': no memory"),
        (422, {"status": "Error", "details": {"error": "no memory"}}, EndpointFailed, "'Error': no memory"),
        (404, {"id": "x", "status": "Task not found"}, EndpointFailed, "Task not found"),
        (200, {"status": "Ready", "result": None}, EndpointFailed, "without its address"),
        (200, {"status": None}, EndpointFailed, "ended as 'None'"),
        (200, b"\xff", EndpointFailed, "no JSON object"),
    ],
)
def test_how_a_job_can_end(
    client: Client, endpoint: Endpoint, status: int, body: object, error: type[LichtError], message: str
) -> None:
    endpoint.poll = lambda: (status, body)
    with pytest.raises(error, match=message):
        client.generate("x")


def test_what_is_no_picture_is_refused(client: Client, endpoint: Endpoint) -> None:
    endpoint.sample = b"<html>"
    with pytest.raises(EndpointFailed, match="no png file"):
        client.generate("x")
    endpoint.sample = PNG[:60]
    with pytest.raises(EndpointFailed, match="damaged picture"):
        _ = client.generate("x")[0].image


def test_an_endpoint_that_is_slow_or_not_there_is_one_line(endpoint: Endpoint) -> None:
    endpoint.poll = lambda: (200, {"status": "Pending"})
    with (
        Client(endpoint.url, poll_s=0.02, timeout_s=0.3) as slow,
        pytest.raises(EndpointFailed, match=r"within 0\.3 s|in time"),
    ):
        slow.generate("x")
    endpoint.delay_s = 1.0
    with Client(endpoint.url, poll_s=0.02, timeout_s=0.2) as slow, pytest.raises(EndpointFailed, match="in time"):
        slow.generate("x")
    with Client("http://127.0.0.1:9", timeout_s=1) as nobody, pytest.raises(EndpointFailed, match="cannot be reached"):
        nobody.generate("x")


def test_an_answer_that_drips_in_ends_in_time(endpoint: Endpoint) -> None:
    endpoint.drips = True
    with Client(endpoint.url, poll_s=0.02, timeout_s=0.3) as slow, pytest.raises(EndpointFailed, match="in time"):
        slow.generate("x")


def test_a_job_outlives_an_endpoint_that_is_busy_for_a_while(client: Client, endpoint: Endpoint) -> None:
    answers: list[tuple[int, Any]] = [(503, b"<html>"), (429, {"detail": "slowly"}), (502, b""), endpoint.ready()]
    endpoint.poll = lambda: answers.pop(0)
    assert client.generate("x")[0].data == PNG
    assert len(endpoint.bodies) == 1


def test_upsampling_is_asked_for_and_what_came_of_it_is_told(client: Client, endpoint: Endpoint) -> None:
    told = {"warnings": ["prompt upsampling is not configured here", 3], "model": "nano"}
    endpoint.poll = lambda: (200, endpoint.ready()[1] | {"details": told})
    (result,) = client.generate("x", upsample=True)
    assert result.warnings == ("prompt upsampling is not configured here",)
    client.generate("x", upsample=False)
    client.generate("x")
    assert [body.get("prompt_upsampling") for body in endpoint.bodies] == [True, False, None]


def test_a_reference_keeps_its_role_and_may_have_no_strength(client: Client, endpoint: Endpoint) -> None:
    client.generate("x", images=[replace(reference(64, 64), role=Role.STYLE)])
    assert endpoint.bodies[0]["prompt"] == "x. Take only the style from image 1, not what it shows."
    client.generate("x", images=image(64, 64), roles="style")
    assert endpoint.bodies[1]["prompt"] == endpoint.bodies[0]["prompt"]
    with pytest.raises(InvalidRequest, match="knows no strengths"):
        client.generate("x", images=[replace(reference(64, 64), strength=0.5)])
    assert len(endpoint.bodies) == 2


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"prompt": "@image1"}, InvalidPrompt),
        ({"prompt": '{"scene": '}, InvalidPrompt),
        ({"num": 0}, InvalidRequest),
        ({"seed": -1}, InvalidRequest),
        ({"size": "100x100"}, InvalidRequest),
        ({"size": (128,)}, InvalidRequest),
        ({"steps": 51}, InvalidRequest),
        ({"guidance": "much"}, InvalidRequest),
        ({"images": ["none.png"]}, InvalidImage),
        ({"images": [3]}, InvalidImage),
        ({"images": ["a.png"] * 11}, InvalidRequest),
        ({"images": [image()], "roles": ["hero"]}, InvalidRequest),
        ({"images": [image()], "roles": ["style", "pose"]}, InvalidRequest),
    ],
)
def test_what_cannot_be_asked_for_is_not_sent(
    client: Client, endpoint: Endpoint, asked: dict[str, Any], error: type[LichtError]
) -> None:
    with pytest.raises(error):
        client.generate(**{"prompt": "x", **asked})
    assert endpoint.bodies == []


@pytest.mark.parametrize(
    "settings", [{"url": "localhost"}, {"url": "ftp://x"}, {"model": "a/b"}, {"output_format": "gif"}, {"timeout_s": 0}]
)
def test_a_client_says_what_is_wrong_with_its_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Client(**{"url": "http://localhost", **settings})


def test_the_client_is_part_of_the_package() -> None:
    assert licht.Client is Client
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        _ = licht.Nobody
