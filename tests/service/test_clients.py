"""What docs/serving.md shows a new user, against a running service."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import PATIENCE_S
from tests.service.serving import Served, start, stop

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = start(tmp_path_factory.mktemp("clients") / "data")
    running.until_ready()
    yield running
    stop(running)


def test_the_first_lines_of_the_documentation(served: Served) -> None:
    """The body and the route are those of the page."""
    text = PAGE.read_text(encoding="utf-8")
    route = "/v1/flux-2-pro"
    body = text.partition("-d '")[2].partition("'")[0]
    assert route in text
    with served.client() as client:
        headers = {"content-type": "application/json"}
        told = client.post(route, content=body, headers=headers).json()
        end = time.monotonic() + PATIENCE_S
        while (polled := client.get(told["polling_url"]).json())["status"] == "Pending":
            assert time.monotonic() < end
            time.sleep(0.05)
    drawn = httpx.get(polled["result"]["sample"], trust_env=False)
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/jpeg")


def test_a_picture_of_another_format_is_refused_by_name(served: Served) -> None:
    gif = base64.b64encode(b"GIF89a" + bytes(100)).decode()
    with served.client() as client:
        told = client.post("/v1/flux-2-pro", json={"prompt": "a cube", "input_image": gif}).json()
    assert told["detail"][0]["loc"] == ["body", "input_image"]
