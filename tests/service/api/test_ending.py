"""The last words of a process: see tests/service/test_ending.py for what comes before them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message

from licht.service.api.ending import Ending
from licht.service.queue.records import State
from tests.service.api.calls import Call
from tests.service.api.conftest import Service
from tests.service.conftest import PATIENCE_S

SHAPES: dict[str, Callable[[Any], bool]] = {
    "/v1/flux-2-pro": lambda told: told["code"] == "stopping",
    "/v1/images/generations": lambda told: told["error"]["type"] == "server_error",
    "/mcp": lambda told: told["error"]["code"] == -32000,
}


class Stuck(Call):
    """A request whose body does not come to its end."""

    begun: asyncio.Event

    async def _receive(self) -> Message:
        self.begun.set()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("path", SHAPES)
def test_who_is_cut_off_at_the_end_hears_why(service: Service, path: str) -> None:
    call = Stuck(service, path, service.key, [], None)

    async def use() -> None:
        call.begun = asyncio.Event()
        task = asyncio.create_task(call.answered())
        await asyncio.wait_for(call.begun.wait(), PATIENCE_S)
        service.parts.ending.finish()
        # what the server does to calls that outlast its patience
        task.cancel()
        await task

    asyncio.run(use())
    assert (call.status, call.headers["retry-after"]) == (503, "10")
    assert SHAPES[path](call.told), call.told


def test_what_is_worth_waiting_for() -> None:
    ending = Ending()
    assert not ending.stops(State.QUEUED)
    ending.begin()
    assert (ending.stops(State.QUEUED), ending.stops(State.RUNNING), ending.over) == (True, False, False)
    ending.finish()
    assert ending.stops(State.RUNNING)
    with ending.call():
        assert ending.calls == 1
    assert ending.calls == 0


def test_while_it_drains_nothing_new_is_taken_and_everything_is_told(service: Service) -> None:
    job = service.submit()["id"]
    service.parts.ending.begin()
    for path in ("/v1/flux-2-pro", "/v1/jobs", "/v1/series", "/v1/arena/battles"):
        bodies = {
            "/v1/series": {"frames": [{"prompt": "a"}], "width": 64, "height": 64},
            "/v1/arena/battles": {
                "request": {"prompt": "a"},
                "contestants": [{"model": "flux-2-pro"}, {"model": "flux-2-max"}],
            },
        }
        refused = service.client.post(path, json=bodies.get(path, {"prompt": "a", "width": 64, "height": 64}))
        assert (refused.status_code, refused.headers.get("retry-after")) == (503, "10"), refused.text
    assert service.client.get("/livez").status_code == 200
    assert service.client.get("/readyz").json()["reason"] == "the service is stopping"
    assert service.poll(job)["status"] == "Pending"
