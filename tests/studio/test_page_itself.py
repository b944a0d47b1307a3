"""The page under bad luck and bad people: hostile names, a service that goes away, small screens, screen readers."""

import base64
import json
import os
import signal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.studio.conftest import OpenDesk
from tests.studio.desk import RED_AND_BLUE, Desk, png

pytestmark = pytest.mark.slow

VIEWS = ("Create", "Gallery", "Series", "Arena", "Verify", "Admin")
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</textarea><script>alert(1)</script>",
    "javascript:alert(1)",
    '"><svg onload=alert(1)>',
    "${alert(1)} {{alert(1)}} \u202e",
)


def test_the_page_is_ready_within_a_second(open_desk: OpenDesk) -> None:
    """Of the browser's own work, so that a busy machine does not decide; the time on the clock is printed beside it."""
    took = []
    for _ in range(3):
        desk = open_desk()
        desk.page.reload()
        desk.prompt.wait_for()
        session = desk.page.context.new_cdp_session(desk.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        desk.page.reload()
        desk.prompt.wait_for()
        clock_s = desk.page.evaluate("performance.now()") / 1000
        metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        took.append((metrics["TaskDuration"], clock_s))
    work_s, clock_s = min(took)
    print(f"ready after {work_s:.2f} s of work, {clock_s:.2f} s on the clock")
    assert work_s < 1.0


def test_the_key_leaves_the_address_and_stays_in_the_tab(desk: Desk) -> None:
    assert "licht_" not in desk.page.url
    assert desk.page.evaluate("Object.values(localStorage).join()").count("licht_") == 0
    assert desk.page.evaluate("document.cookie") == ""
    desk.page.reload()
    expect(desk.prompt).to_be_visible()
    desk.button("Sign out").click()
    expect(desk.page.get_by_label("API key")).to_be_visible()
    assert desk.page.evaluate("sessionStorage.getItem('licht.key')") is None
    desk.page.get_by_label("API key").fill("licht_wrong")
    expect(desk.page.get_by_text("A key begins with licht_")).to_be_visible()
    desk.expected = ["422", "403"]
    desk.page.get_by_label("API key").fill(f"licht_{'A' * 10}_{'B' * 49}")
    desk.page.get_by_role("button", name="Sign in").click()
    expect(desk.page.get_by_text("This service does not know that key")).to_be_visible()


def test_before_a_worker_is_there_the_page_knows_what_will_draw(desk: Desk) -> None:
    def starting(route: Route) -> None:
        told = route.fetch().json()
        route.fulfill(json={**told, "ready": False, "native": None})

    desk.page.route("**/v1/about", starting)
    desk.page.reload()
    expect(desk.page.get_by_text("nano is starting …")).to_be_visible()
    expect(desk.page.get_by_text("The built-in model knows a small table-top world")).to_be_visible()
    expect(desk.page.locator(".cost")).to_contain_text("256 \u00d7 256")


def test_a_sketch_that_a_reload_left_behind_is_removed(desk: Desk) -> None:
    desk.expected = ["404"]
    with desk.served.client() as client:
        made = client.post("/v1/jobs", json={"prompt": RED_AND_BLUE, "model": "flux-2-klein-4b", "num": 1}).json()
        kept = json.dumps({"ids": [made["id"]]})
        desk.page.evaluate(f"sessionStorage.setItem('licht.sketches', '{kept}')")
        desk.page.reload()
        for _ in range(1800):
            if client.get(f"/v1/jobs/{made['id']}").status_code == 404:
                break
            desk.page.wait_for_timeout(100)
        assert client.get(f"/v1/jobs/{made['id']}").status_code == 404
    desk.page.wait_for_function("JSON.parse(sessionStorage.getItem('licht.sketches')).ids.length === 0")
    expect(desk.page.locator(".tile")).to_have_count(0)


def test_what_is_replaced_can_be_taken_back(desk: Desk) -> None:
    desk.prompt.fill("my own words")
    desk.page.locator(".samples").get_by_role("button", name=RED_AND_BLUE).click()
    expect(desk.prompt).to_have_value(RED_AND_BLUE)
    expect(desk.prompt).to_be_focused()
    desk.button("Undo").click()
    expect(desk.prompt).to_have_value("my own words")
    desk.go("Series")
    desk.page.get_by_label("Title").fill("My story")
    desk.button("New story").click()
    expect(desk.page.get_by_label("Title")).to_have_value("")
    desk.button("Undo").click()
    expect(desk.page.get_by_label("Title")).to_have_value("My story")


def test_a_file_beside_the_tray_is_for_the_tray(desk: Desk) -> None:
    data = base64.b64encode(png("#d62f2b")).decode()
    desk.page.evaluate(
        """(data) => {
            const moved = new DataTransfer();
            moved.items.add(new File([Uint8Array.from(atob(data), (each) => each.charCodeAt(0))], "red.png", { type: "image/png" }));
            document.querySelector(".stage").dispatchEvent(new DragEvent("drop", { dataTransfer: moved, bubbles: true, cancelable: true }));
        }""",
        data,
    )
    expect(desk.page.locator(".reference .file")).to_have_text("red.png")


def test_hostile_names_and_prompts_stay_text(desk: Desk) -> None:
    names = ["<img src=x onerror=alert(1)>.png", "..\\..\\etc.png", "x" * 180 + ".png", "\u202egnp.exe.png"]
    chosen = [
        {"name": name, "mimeType": "image/png", "buffer": png(f"#{number}{number}99cc")}
        for number, name in enumerate(names)
    ]
    desk.page.get_by_label("Add reference pictures").set_input_files(chosen)  # type: ignore[arg-type]
    expect(desk.page.locator(".reference")).to_have_count(len(names))
    expect(desk.page.locator(".reference .file").first).to_have_text(names[0])
    for _ in names:
        desk.button("Remove @image1").click()
    for prompt in HOSTILE[:2]:
        desk.draw(prompt)
        desk.until_drawn()
        assert desk.newest()["prompt"] == prompt
    desk.go("Gallery")
    expect(desk.page.locator(".grid li p").first).to_have_text(HOSTILE[1])
    desk.go("Series")
    desk.page.get_by_label("Title").fill(HOSTILE[3])
    desk.page.get_by_role("textbox", name="Frame 1").fill(HOSTILE[4])
    desk.go("Verify")
    desk.page.get_by_label("Files to verify").set_input_files(
        {"name": names[0], "mimeType": "image/png", "buffer": png("#2a56c8")}
    )
    expect(desk.page.locator(".report .file")).to_have_text(names[0])
    # nothing of it became an element, and no script ran: `open_desk` looks for dialogs and refused scripts
    assert desk.page.locator("main img[src='x'], main script, main svg[onload]").count() == 0


def test_nothing_typed_is_lost_while_the_service_is_away(desk: Desk) -> None:
    desk.expected = ["ERR_INTERNET_DISCONNECTED", "ERR_CONNECTION", "ERR_NETWORK", "net::"]
    desk.prompt.fill("a large matte orange cone")
    desk.page.context.set_offline(True)
    desk.prompt.press("End")
    desk.prompt.press_sequentially(" on a teal floor")
    desk.button("Draw").click()
    expect(desk.page.get_by_text("Licht does not answer. What you typed is safe")).to_be_visible()
    expect(desk.prompt).to_have_value("a large matte orange cone on a teal floor")
    desk.page.context.set_offline(False)
    expect(desk.page.get_by_text("What you typed is safe")).to_have_count(0)
    desk.draw()
    desk.until_drawn()
    assert desk.newest()["prompt"] == "a large matte orange cone on a teal floor"
    # a tab that is closed and opened again by the browser has it too
    desk.page.reload()
    expect(desk.prompt).to_have_value("a large matte orange cone on a teal floor")


def test_a_killed_api_does_not_lose_the_job_that_is_being_watched(desk: Desk) -> None:
    desk.expected = ["ERR_", "net::", "Failed to load resource"]
    desk.page.get_by_label("Model").select_option("flux-2-flex")
    desk.prompt.fill(RED_AND_BLUE)
    desk.button("Final (50 steps)").click()
    expect(desk.page.locator(".making img")).to_be_visible()
    api = [pid for pid in desk.served.children() if b"api" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    assert len(api) == 1
    os.kill(api[0], signal.SIGKILL)
    desk.until_drawn()
    expect(desk.prompt).to_have_value(RED_AND_BLUE)
    made = desk.newest()
    assert (made["prompt"], made["steps"]) == (RED_AND_BLUE, 50)


def test_an_enormous_mask_of_errors_does_not_hide_the_field(desk: Desk) -> None:
    desk.expected = ["422"]
    desk.prompt.fill("a sphere")
    desk.page.get_by_label("Seed", exact=True).fill("99999999999999999999999")
    expect(desk.page.locator(".field.seed .error")).to_be_visible()
    assert desk.page.get_by_label("Seed", exact=True).get_attribute("aria-invalid") == "true"


def test_everything_is_reached_with_keys(desk: Desk) -> None:
    desk.page.keyboard.press("Tab")
    expect(desk.page.get_by_role("link", name="To the content")).to_be_focused()
    desk.page.keyboard.press("Enter")
    assert desk.page.evaluate("document.activeElement.tagName") == "MAIN"
    desk.prompt.focus()
    desk.page.keyboard.type(RED_AND_BLUE)
    desk.page.keyboard.press("Control+Enter")
    desk.until_drawn()
    opener = desk.page.get_by_role("button", name="Open: ").first
    opener.focus()
    desk.page.keyboard.press("Enter")
    expect(desk.page.get_by_role("dialog")).to_be_visible()
    for _ in range(25):
        desk.page.keyboard.press("Tab")
        inside = "document.activeElement === document.body || document.querySelector('dialog').contains(document.activeElement)"
        assert desk.page.evaluate(inside)
    desk.page.keyboard.press("Escape")
    expect(desk.page.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()


def _audited(desk: Desk) -> list[str]:
    """What axe-core finds, of what it calls serious or critical."""
    script = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    # evaluated by the debugger: the page's own policy would refuse it as a script element
    desk.page.evaluate(script)
    found: dict[str, Any] = desk.page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary'][:200]}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_every_view_fits_reads_aloud_and_is_photographed(
    open_desk: OpenDesk, shots: Path, scheme: str, width: int
) -> None:
    desk = open_desk(width=width, height=844 if width == 390 else 900, color_scheme=scheme)
    desk.draw(RED_AND_BLUE)
    desk.until_drawn()
    # both themes and both widths are audited, but not each with each: an audit takes longer than a picture
    audited = (scheme, width) in (("light", 390), ("dark", 1440))
    wrong = []
    for view in VIEWS:
        desk.go(view)
        desk.page.wait_for_timeout(700)
        desk.page.screenshot(path=shots / f"{view.lower()}-{scheme}-{width}.png")
        assert desk.page.evaluate("document.documentElement.scrollWidth") <= width, f"{view} is too wide"
        wrong += [f"{view}: {each}" for each in (_audited(desk) if audited else [])]
    desk.go("Gallery")
    desk.page.locator(".grid .open").first.click()
    expect(desk.page.locator(".facts")).to_be_visible()
    desk.page.wait_for_timeout(300)
    desk.page.screenshot(path=shots / f"picture-{scheme}-{width}.png")
    wrong += [f"picture: {each}" for each in (_audited(desk) if audited else [])]
    desk.button("Close").click()
    desk.go("Create")
    desk.page.get_by_role("switch", name="Structured").click()
    desk.page.get_by_label("Template").select_option("0")
    desk.page.wait_for_timeout(700)
    desk.page.screenshot(path=shots / f"structured-{scheme}-{width}.png")
    wrong += [f"structured: {each}" for each in (_audited(desk) if audited else [])]
    assert wrong == []


def test_a_german_reads_german(open_desk: OpenDesk) -> None:
    desk = open_desk(locale="de-DE")
    assert desk.page.evaluate("document.documentElement.lang") == "de"
    expect(desk.page.get_by_role("link", name="Galerie")).to_be_visible()
    expect(desk.page.get_by_placeholder("Was möchten Sie sehen?")).to_be_visible()
    said = "import('/studio/said.js').then((said) => said.said({!r}))"
    warning = "nano was trained up to 128x128: drawn at 128x128, enlarged to 256x256"
    assert (
        desk.page.evaluate(said.format(warning))
        == "nano wurde bis 128x128 trainiert: mit 128x128 gezeichnet, auf 256x256 vergrößert"
    )
    assert desk.page.evaluate(said.format("num: Input should be less than or equal to 10")) == "Höchstens 10."
    assert desk.page.evaluate(said.format("something new")) == "something new"
    desk.page.get_by_role("button", name="English").click()
    expect(desk.page.get_by_role("link", name="Gallery")).to_be_visible()
    expect(desk.page.get_by_placeholder("What would you like to see?")).to_be_visible()


def test_differences_and_zips(desk: Desk) -> None:
    difference = "import('/studio/diff.js').then((diff) => diff.difference(...{}))"
    assert desk.page.evaluate(difference.format('["a red cube", "a blue cube"]')) == [
        ["same", "a "], ["gone", "red "], ["new", "blue "], ["same", "cube"],
    ]  # fmt: skip
    assert desk.page.evaluate(difference.format('["a\\nb\\n", "a\\nc\\nb\\n"]')) == [
        ["same", "a\n"], ["new", "c\n"], ["same", "b\n"],
    ]  # fmt: skip
    check = "import('/studio/zip.js').then((zip) => zip.crc32(new TextEncoder().encode('123456789')))"
    assert desk.page.evaluate(check) == 0xCBF43926
