"""The official MCP client, over HTTP and on stdio, against the built-in model."""

import asyncio
import sys
from pathlib import Path

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ImageContent, TextContent

from tests.service.serving import Served
from tests.support.processes import ROOT

TOOLS = {"generate_image", "edit_image", "list_models", "get_result"}


async def _draws(client: Client) -> str:
    """Draw, and return the id of the job."""
    assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
    arguments = {"prompt": "a red sphere", "width": 64, "height": 64, "model": "flux-2-klein-4b"}
    told = await client.call_tool("generate_image", arguments)
    text, image = told.content
    assert isinstance(text, TextContent)
    assert isinstance(image, ImageContent)
    assert image.mime_type == "image/jpeg"
    return text.text.split(",")[0].removeprefix("id ")


def test_over_http(live: Served) -> None:
    async def use() -> None:
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {live.key}"}, timeout=60) as http:
            transport = streamable_http_client(f"{live.url}/mcp", http_client=http)
            async with Client(transport) as client:
                job = await _draws(client)
                again = await client.call_tool("get_result", {"id": job})
                assert not again.is_error
                models = await client.call_tool("list_models", {})
                assert isinstance(models.content[0], TextContent)
                assert "drawn by nano" in models.content[0].text

    asyncio.run(use())


@pytest.mark.slow
def test_on_stdio_with_a_file_of_this_machine(live: Served, tmp_path: Path) -> None:
    picture = ROOT / "docs" / "images" / "demo.png"

    async def use() -> None:
        options = ["-m", "licht", "mcp", "--url", live.url, "--key", live.key]
        server = StdioServerParameters(command=sys.executable, args=options, cwd=str(tmp_path))
        async with Client(server) as client:
            await _draws(client)
            edited = await client.call_tool("edit_image", {"prompt": "make it blue", "images": [str(picture)]})
            assert not edited.is_error, edited.content

    asyncio.run(use())
