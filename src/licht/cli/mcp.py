"""`licht mcp`: the tools of the service for an assistant on this machine, over stdin and stdout."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def mcp(
    url: Annotated[
        str | None,
        typer.Option(envvar="LICHT_URL", help="Address of a running service (default: start one of its own)."),
    ] = None,
    key: Annotated[str | None, typer.Option(envvar="LICHT_KEY", help="Its key.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder of the service that is started.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A model's name, folder or file.")] = None,
) -> None:
    """Serve MCP on stdio: generate_image, edit_image, list_models, get_result."""
    from licht.core.errors import InvalidRequest

    if url is not None:
        if key is None:
            raise InvalidRequest("--url needs --key (or LICHT_KEY); licht keys create makes one", field="key")
        _run(url, key)
        return
    with _service(data, model) as (own_url, own_key):
        _run(own_url, own_key)


def _run(url: str, key: str) -> None:
    import httpx

    from licht.service import mcp

    def connect(_context: object) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=url, headers={"x-key": key}, timeout=60, trust_env=False)

    mcp.build(connect, files=True).run("stdio")


@contextmanager
def _service(data: Path | None, model: str | None) -> Iterator[tuple[str, str]]:
    """(address, key) of a service that lives as long as this command."""
    import json
    import subprocess
    import sys

    from licht.core.errors import NotAvailable

    options = ["--data", str(data)] if data is not None else []
    options += ["--model", model] if model is not None else []
    command = [sys.executable, "-m", "licht", "serve", "--port", "0", "--json", *options]
    # stdin and stdout belong to the protocol; what the service has to say goes to stderr
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line.startswith("{"):
            raise NotAvailable("the service did not start; its words are above")
        told = json.loads(line)
        if "url" not in told:
            raise NotAvailable("the service did not start; its words are above")
        yield told["url"], told["key"]
    finally:
        process.terminate()
        process.wait()
