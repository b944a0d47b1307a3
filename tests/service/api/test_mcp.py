import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from tests.service.api.conftest import Service
from tests.service.api.pictures import encoded

ACCEPT = {"accept": "application/json, text/event-stream"}


def send(service: Service, method: str, params: object = None, **headers: str) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    response = service.client.post("/mcp", json=message, headers={**ACCEPT, **headers})
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told


def use(service: Service, tool: str, **arguments: object) -> dict[str, Any]:
    told: dict[str, Any] = send(service, "tools/call", {"name": tool, "arguments": arguments})["result"]
    return told


def test_the_handshake_as_clients_have_it(service: Service) -> None:
    client = {"name": "tests", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
    told = send(service, "initialize", params)["result"]
    assert told["protocolVersion"] == "2025-11-25"
    assert told["serverInfo"]["name"] == "licht"
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    answer = service.client.post("/mcp", json=note, headers=ACCEPT)
    assert (answer.status_code, answer.content) == (202, b"")
    tools = send(service, "tools/list")["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["generate_image", "edit_image", "list_models", "get_result"]
    assert all(tool["description"] for tool in tools)
    assert service.client.get("/mcp", headers=ACCEPT).status_code == 405
    assert send(service, "no/such/method")["error"]["code"] == -32601


def test_an_older_client_is_told_to_shake_hands(service: Service) -> None:
    """Newer clients ask `server/discover` first; whatever is answered, an error of theirs or a result, is JSON-RPC."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {}}
    headers = {**ACCEPT, "MCP-Protocol-Version": "2026-07-28"}
    told = service.client.post("/mcp", json=message, headers=headers).json()
    assert told["jsonrpc"] == "2.0"
    assert ("result" in told) != ("error" in told)


def test_a_picture_is_drawn_and_changed(running: Service) -> None:
    told = use(running, "generate_image", prompt="a ball", width=64, height=64, seed=5)
    text, image = told["content"]
    assert not told["isError"]
    with Image.open(io.BytesIO(base64.b64decode(image["data"]))) as drawn:
        assert (image["mimeType"], drawn.format, drawn.size) == ("image/jpeg", "JPEG", (64, 64))
    job_id = text["text"].split(",")[0].removeprefix("id ")
    assert "seed 5" in text["text"]
    use(running, "edit_image", prompt="make it blue", images=[f"job:{job_id}", encoded((9, 0, 0))])
    assert [each.picture.size.width for each in running.drawer.requests[-1].references] == [64, 64]
    mask = encoded((255, 255, 255))
    use(running, "edit_image", prompt="make it blue", images=[f"job:{job_id}"], mask=mask)
    assert running.drawer.requests[-1].mask is not None
    again = use(running, "get_result", id=job_id)
    assert again["content"][1]["data"] == image["data"]
    assert "flux-2-max (drawn by fake)" in use(running, "list_models")["content"][0]["text"]


def test_a_long_picture_is_fetched_later(running: Service) -> None:
    told = use(running, "generate_image", prompt="slow 0.3", width=64, height=64, wait_s=0.2)
    text = told["content"][0]["text"]
    assert "get_result" in text
    assert len(told["content"]) == 1
    job_id = text.rpartition(" ")[2]
    assert use(running, "get_result", id=job_id)["content"][1]["type"] == "image"


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("generate_image", {"prompt": "a", "model": "dall-e"}, "unknown"),
        ("generate_image", {"prompt": "a", "width": 10}, "too small"),
        ("generate_image", {"prompt": "refuse-request", "width": 64, "height": 64}, "not in this house"),
        ("generate_image", {}, "prompt"),
        ("edit_image", {"prompt": "a", "images": ["/etc/passwd"]}, "base64"),
        ("get_result", {"id": "../keys"}, "no such job"),
        ("get_result", {"id": "x"}, "no such job"),
    ],
)
def test_what_goes_wrong_is_said_in_words(running: Service, tool: str, arguments: dict[str, Any], words: str) -> None:
    told = use(running, tool, **arguments)
    assert told["isError"] is True
    assert words in told["content"][0]["text"]


def test_every_call_needs_a_key(service: Service) -> None:
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert service.client.post("/mcp", content=message, headers={**ACCEPT, "x-key": ""}).status_code == 401
    headers = {**ACCEPT, "Authorization": f"Bearer {service.key}", "content-type": "application/json"}
    del service.client.headers["x-key"]
    assert service.client.post("/mcp", content=message, headers=headers).status_code == 200


def test_a_job_belongs_to_the_key_that_called(running: Service) -> None:
    told = use(running, "generate_image", prompt="a ball", width=64, height=64)
    job_id = told["content"][0]["text"].split(",")[0].removeprefix("id ")
    other = running.parts.keys.create("other").text
    params = {"name": "get_result", "arguments": {"id": job_id}}
    assert send(running, "tools/call", params, **{"x-key": other})["result"]["isError"] is True


def test_what_is_no_message(service: Service) -> None:
    for content in (b"", b"hello", b"{}", b"[]", b'{"jsonrpc": "2.0"}'):
        headers = {**ACCEPT, "content-type": "application/json"}
        assert service.client.post("/mcp", content=content, headers=headers).status_code == 400
