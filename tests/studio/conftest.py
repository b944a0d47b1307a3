"""The page in a real browser, against a live `licht serve` with the built-in model."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.serving import Served, environment, stop

playwright = pytest.importorskip("playwright.sync_api", reason="the tests of the studio need the package playwright")
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright  # noqa: E402

from tests.studio.desk import Desk  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with the built-in model, ready to draw."""
    data = tmp_path_factory.mktemp("studio") / "data"
    errors = data.parent / "errors.log"
    variables = {name: value for name, value in environment().items() if name != "LICHT_SERVICE__WORKER__ENGINE"}
    with errors.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "licht", "serve", "--data", str(data), "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env=variables,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, errors.read_text()
    told = json.loads(line)
    running = Served(process, told["url"], told["key"], data, errors)
    try:
        running.until_ready(240)
        yield running
    finally:
        stop(running)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a screen."""
    if CHROMIUM is None:
        pytest.skip("the tests of the studio need a browser: apt-get install chromium")
    # pictures take their time on a slow machine
    expect.set_options(timeout=180_000)
    with sync_playwright() as started:
        # the sandbox of the browser needs rights that containers do not have; it opens our own page only
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


OpenDesk = Callable[..., Desk]


@pytest.fixture
def open_desk(browser: Browser, served: Served) -> Iterator[OpenDesk]:
    """Opens the page as somebody new with these habits. At the end: no script error, no refused script, no lost request."""
    contexts: list[BrowserContext] = []
    desks: list[Desk] = []

    def opened(width: int = 1440, height: int = 900, **options: Any) -> Desk:  # noqa: ANN401 - Playwright's own
        options = {"color_scheme": "light", "locale": "en-GB", "accept_downloads": True, **options}
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(180_000)
        contexts.append(context)
        page: Page = context.new_page()
        with served.client() as client:
            made = client.post("/v1/admin/keys", json={"name": "desk", "scopes": ["generate", "metrics", "admin"]})
        desk = Desk(page, Served(served.process, served.url, made.json()["text"], served.data, served.errors))
        desks.append(desk)
        desk.enter()
        return desk

    yield opened
    for context in contexts:
        context.close()
    assert [problem for desk in desks for problem in desk.problems] == []


@pytest.fixture
def desk(open_desk: OpenDesk) -> Desk:
    return open_desk()


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: the folder that LICHT_SCREENSHOTS names, else pytest's own."""
    named = os.environ.get("LICHT_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"screenshots: {folder}")
    return folder
