"""What callers send: read only for who may send it, and no more of it at a time than there is room for."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message

from licht.core.errors import InvalidSettings
from licht.service.api.auth import Guarded
from licht.service.api.open_bodies import SMALL_BYTES, OpenBodies, OpenBody
from licht.service.settings import load_settings
from tests.service.api.calls import Call
from tests.service.api.conftest import Build, Service
from tests.service.conftest import Clock

ROUTES = ("/v1/flux-2-pro", "/v1/jobs", "/v1/images/generations", "/v1/images/edits", "/v1/verify", "/mcp", "/v1/plan")
LARGE = 3 * SMALL_BYTES


@pytest.mark.parametrize("path", ROUTES)
def test_without_a_key_nothing_of_a_body_is_read(service: Service, path: str) -> None:
    metrics_only = service.parts.keys.create("metrics", ("metrics",)).text
    almost = service.key[:-1] + ("y" if service.key.endswith("x") else "x")
    for key in (None, "nonsense", almost, metrics_only):
        call = Call(service, path, key, [b"a" * LARGE] * 10, 10 * LARGE).run()
        assert (call.status in (401, 403, 422), call.looked) == (True, 0), (call.status, call.body)


def test_every_route_looks_at_the_key_first(service: Service) -> None:
    routes = list(_routes(service.app.router.routes))
    assert len(routes) > 40
    assert [route for route in routes if getattr(route, "endpoint", None) and not isinstance(route, Guarded)] == []


def _routes(routes: Any) -> Iterator[Any]:  # noqa: ANN401 - the framework's own classes
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _routes(inner.routes)
        elif not route.path.startswith("/openapi.json"):
            yield route


SHAPES: dict[str, Callable[[Any], bool]] = {
    "/v1/flux-2-pro": lambda told: told["code"] == "http_503" and "try again" in told["detail"],
    "/v1/images/generations": lambda told: told["error"]["type"] == "server_error" and told["error"]["param"] is None,
    "/mcp": lambda told: (told["jsonrpc"], told["id"], told["error"]["code"]) == ("2.0", None, -32000),
}


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("declared", [True, False])
def test_beyond_the_room_for_all_callers_hear_when_to_come_back(service: Service, path: str, declared: bool) -> None:
    bodies = service.parts.open_bodies
    room = service.parts.settings.server.open_bodies_bytes - bodies.taken_bytes
    bodies.take(room - LARGE, known=True)
    pieces = [b"a" * LARGE] * 4
    call = Call(service, path, service.key, pieces, 4 * LARGE if declared else None).run()
    assert (call.status, call.headers["retry-after"]) == (503, "2")
    assert SHAPES[path](call.told), call.told
    # one that says how large it is, is not even begun
    assert call.looked == (0 if declared else 2)
    # what was refused holds nothing, and words alone are let through
    assert bodies.taken_bytes == room - LARGE
    service.submit()
    bodies.give_back(room - LARGE, known=True)


def test_an_answered_request_gives_its_room_back(service: Service) -> None:
    picture = "A" * LARGE
    response = service.client.post("/v1/flux-2-pro", json={"prompt": "a", "input_image": picture})
    assert response.status_code == 422
    assert service.parts.open_bodies.taken_bytes == 0


def test_streams_without_a_length_are_cut_off_at_the_limit(build: Build) -> None:
    service = build(server__max_body_bytes=10 * LARGE)
    for path in SHAPES:
        call = Call(service, path, service.key, [b"a" * LARGE] * 1000, None).run()
        assert (call.status, call.looked, call.headers["connection"]) == (413, 11, "close")
        assert service.parts.open_bodies.taken_bytes == 0


def test_strangers_share_a_quarter_where_they_are_let_in(build: Build) -> None:
    service = build(verify__open=True, server__max_body_bytes=8 * LARGE, server__open_bodies_bytes=8 * LARGE)
    for pieces, status in ((2, 422), (3, 503)):
        call = Call(service, "/v1/verify", None, [b"a" * LARGE] * pieces, pieces * LARGE).run()
        assert call.status == status, call.body
    assert Call(service, "/v1/verify", service.key, [b"a" * LARGE] * 3, 3 * LARGE).run().status == 422


def test_who_sends_too_slowly_is_let_go(clock: Clock) -> None:
    bodies = OpenBodies(2**20, 2**20, clock)

    async def receive() -> Message:
        clock.now += 20
        return {"type": "http.request", "body": b"a" * SMALL_BYTES, "more_body": True}

    async def stuck() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def read_all(body: OpenBody) -> None:
        while True:
            await body.receive()

    async def use() -> None:
        with pytest.raises(HTTPException, match="too slowly") as error:
            await read_all(bodies.open({"state": {}}, receive, None))
        assert error.value.status_code == 408
        assert clock.now < 1_800_000_000 + 200
        waiting = bodies.open({"state": {}}, stuck, None)
        clock.now = 0.0
        first = asyncio.create_task(waiting.receive())
        await asyncio.sleep(0)
        assert not first.done()
        first.cancel()

    asyncio.run(use())


def test_all_must_have_room_for_one(tmp_path: object) -> None:
    with pytest.raises(InvalidSettings, match="open_bodies_bytes"):
        load_settings(None, {"data": str(tmp_path), "server.open_bodies_bytes": 1000}, {})


def test_a_body_that_is_no_json(service: Service) -> None:
    """OpenAI's error names no field where none is to blame."""
    headers = {"content-type": "application/json"}
    response = service.client.post("/v1/images/generations", content=b'{"prompt": "a",', headers=headers)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, None)
    assert "JSON" in error["message"]
