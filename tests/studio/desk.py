"""What a person does at the page, by the names that they see or hear."""

import io
import json
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import ConsoleMessage, Locator, Page, Response, expect

from tests.service.serving import Served

RED_AND_BLUE = "a large shiny red sphere to the left of a small matte blue cube on a gray floor, light from the left"


def png(color: str, shape: str = "ellipse", side_px: int = 128) -> bytes:
    """A picture to refer to."""
    image = Image.new("RGB", (side_px, side_px), "#b8babd")
    draw = ImageDraw.Draw(image)
    box = (side_px // 4, side_px // 4, side_px * 3 // 4, side_px * 3 // 4)
    if shape == "ellipse":
        draw.ellipse(box, fill=color)
    else:
        draw.rectangle(box, fill=color)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def queued(response: Response) -> bool:
    """Whether it answers a request for a picture."""
    return response.request.method == "POST" and response.url.endswith("/v1/jobs")


class Desk:
    """A page that is signed in, and everything that went wrong on it."""

    def __init__(self, page: Page, served: Served) -> None:
        self.page = page
        self.served = served
        self.problems: list[str] = []
        self.expected: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"script error: {error}"))
        page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(text in message.text for text in self.expected):
            self.problems.append(f"console: {message.text}")

    def enter(self) -> None:
        """Open the address that `licht serve` prints."""
        self.page.goto(f"{self.served.url}/#key={self.served.key}")
        expect(self.page.get_by_role("navigation")).to_be_visible()
        expect(self.page.get_by_text("nano", exact=True)).to_be_visible()

    def go(self, view: str) -> None:
        self.page.get_by_role("link", name=view, exact=True).click()
        expect(self.page.locator("main h1")).to_have_text(view)

    @property
    def prompt(self) -> Locator:
        return self.page.locator(".composer").get_by_label("Prompt", exact=True)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def draw(self, prompt: str | None = None) -> None:
        if prompt is not None:
            self.prompt.fill(prompt)
        with self.page.expect_response(queued) as response:
            self.button("Draw").click()
        job_id = response.value.json()["id"]
        expect(self.page.locator(f".group .tile[data-job='{job_id}']")).to_be_visible()

    def first_tile(self) -> Locator:
        return self.page.locator(".group .tile").first

    def notice(self, *selectors: str) -> None:
        """From now on remember which of these were on the page, however briefly: a busy machine looks too late."""
        self.page.evaluate(
            """(selectors) => {
                window.noticed = new Set();
                const look = () => selectors.filter((each) => document.querySelector(each)).forEach((each) => window.noticed.add(each));
                new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
                look();
            }""",
            selectors,
        )

    def noticed(self) -> set[str]:
        """What of it was there."""
        return set(self.page.evaluate("[...window.noticed]"))

    def until_drawn(self) -> None:
        expect(self.page.locator(".group .tile.ready").first).to_be_visible()
        expect(self.page.locator(".group .making")).to_have_count(0)

    def api(self, path: str) -> Any:  # noqa: ANN401 - JSON
        with self.served.client() as client:
            answer = client.get(path)
            assert answer.status_code == 200, answer.text
            return answer.json()

    def newest(self) -> dict[str, Any]:
        """The newest picture, with its recipe."""
        listed = self.api("/v1/gallery?limit=1")["pictures"][0]
        found: dict[str, Any] = self.api(f"/v1/gallery/{listed['id']}")
        return found

    def file(self, job_id: str) -> bytes:
        with self.served.client() as client:
            return client.get(f"/v1/jobs/{job_id}/picture").content

    def stored(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """What the tab keeps under a name."""
        return json.loads(self.page.evaluate(f"sessionStorage.getItem('licht.{name}')"))
