"""What somebody does with the page, from the first picture to the arena."""

import base64
import io
import json
import re
import secrets
import time
import tomllib
import zipfile

import pytest
from PIL import Image
from playwright.sync_api import APIResponse, Route, expect

from licht.core.series import Story
from licht.safety import provenance
from tests.studio.conftest import OpenDesk
from tests.studio.desk import RED_AND_BLUE, Desk, png, queued

pytestmark = pytest.mark.slow


def test_the_first_picture_is_a_click_on_a_sample_and_a_click_on_draw(desk: Desk) -> None:
    desk.page.locator(".samples").get_by_role("button", name=RED_AND_BLUE).click()
    expect(desk.prompt).to_have_value(RED_AND_BLUE)
    expect(desk.page.locator(".cost")).to_contain_text("3 credits · about")
    making = (".making img", ".making [role=progressbar]")
    desk.notice(*making)
    desk.draw()
    desk.until_drawn()
    assert desk.noticed() == set(making)
    made = desk.newest()
    assert (made["prompt"], made["seed"], made["weights"]) == (RED_AND_BLUE, 14, "nano")
    desk.page.get_by_role("button", name="Open: ").first.click()
    facts = desk.page.locator(".facts")
    expect(facts).to_contain_text("256 \u00d7 256")
    with desk.page.expect_download() as download:
        desk.button("Download PNG").click()
    # byte for byte, so that its credentials are whole
    assert download.value.path().read_bytes() == desk.file(made["id"])
    # another kind of file is the same picture with credentials of its own, at once and for nothing
    with desk.page.expect_download() as download:
        desk.button("Download JPEG").click()
    credentials = provenance.read(download.value.path().read_bytes(), "JPEG")
    assert (credentials.state, credentials.ingredients) == ("valid", 1)
    assert desk.newest()["id"] == made["id"]
    desk.button("Favourite").click()
    expect(desk.button("No favourite any more")).to_be_visible()
    # what the sample told may still be there, with a button of that name
    desk.page.get_by_role("dialog").locator("header").get_by_role("button", name="Close", exact=True).click()
    desk.go("Gallery")
    desk.page.get_by_role("switch", name="Favourites").click()
    expect(desk.page.locator(".grid li")).to_have_count(1)
    desk.page.get_by_role("searchbox").fill("no such words")
    expect(desk.page.get_by_text("Nothing found.")).to_be_visible()
    desk.page.get_by_role("searchbox").fill("")
    desk.page.locator(".grid .open").click()
    desk.button("Delete").click()
    question = desk.page.get_by_role("dialog", name="Delete this picture?")
    question.get_by_role("button", name="Cancel").click()
    expect(desk.page.locator(".facts")).to_be_visible()
    desk.button("Delete").click()
    question.get_by_role("button", name="Delete").click()
    expect(desk.page.locator(".grid li")).to_have_count(0)


def test_an_edit_with_two_references(desk: Desk) -> None:
    files = [("red.png", png("#d62f2b")), ("blue.png", png("#2a56c8", "rectangle"))]
    chosen = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
    desk.page.get_by_label("Add reference pictures").set_input_files(chosen)  # type: ignore[arg-type]
    expect(desk.page.locator(".reference")).to_have_count(2)
    desk.page.get_by_label("Role of @image2").select_option("style")
    desk.page.get_by_label("Strength of @image1").fill("2")
    desk.prompt.press_sequentially("the sphere of @im")
    expect(desk.page.locator(".names").get_by_role("option")).to_have_count(2)
    desk.prompt.press("ArrowDown")
    desk.prompt.press("Enter")
    expect(desk.prompt).to_have_value("the sphere of @image2 ")
    desk.prompt.press_sequentially("and @image1 on a gray floor")
    _paint_a_part(desk, "@image1", "red.png part")
    desk.page.get_by_role("button", name="Use only a part of @image1").click()
    desk.button("Clear").click()
    desk.button("Use this part").click()
    expect(desk.page.locator(".reference .file").first).to_have_text("red.png")
    _paint_a_part(desk, "@image1", "red.png part")
    desk.page.get_by_role("button", name="Move @image2 forward").click()
    expect(desk.page.locator(".reference .file").first).to_have_text("blue.png")
    desk.prompt.press("Control+Enter")
    desk.until_drawn()
    references = desk.newest()["recipe"]["references"]
    assert [(each["role"], each["strength"]) for each in references] == [("style", 1.0), (None, 2.0)]


def _paint_a_part(desk: Desk, name: str, kept: str) -> None:
    desk.page.get_by_role("button", name=f"Use only a part of {name}").click()
    canvas = desk.page.locator(".painter canvas")
    for key in (" ", "ArrowDown", " "):
        canvas.press(key)
    # the latest dot is taken back, the first one stays
    desk.button("Undo").click()
    desk.button("Use this part").click()
    expect(desk.page.locator(".reference .file").first).to_have_text(kept)


def test_a_structured_prompt_as_form_and_json(desk: Desk) -> None:
    desk.expected = ["422"]
    desk.page.get_by_role("switch", name="Structured").click()
    dialog = desk.page.get_by_role("dialog")
    dialog.get_by_label("Template").select_option("0")
    code = dialog.get_by_label("JSON", exact=True)
    written = json.loads(code.input_value())
    assert [subject["type"] for subject in written["subjects"]] == ["sphere", "cube"]
    # the form writes the JSON
    dialog.get_by_label("What", exact=True).first.fill("cone")
    assert json.loads(code.input_value())["subjects"][0]["type"] == "cone"
    dialog.get_by_role("button", name="Add a colour").last.click()
    assert json.loads(code.input_value())["color_palette"] == ["#c98b3a"]
    # and the JSON the form
    code.fill(json.dumps({**written, "mood": "calm", "color_palette": ["#12"]}))
    expect(dialog.get_by_label("Mood")).to_have_value("calm")
    # the service's complaint stands at its field
    expect(dialog.locator(".colors .error")).to_contain_text("#rrggbb")
    code.fill('{"scene": ')
    expect(dialog.get_by_label("Mood")).to_have_value("calm")
    expect(dialog.locator(".json .error")).to_be_visible()
    # a template in the place of what was typed can be taken back, from within the dialog
    typed = json.dumps({"scene": RED_AND_BLUE})
    code.fill(typed)
    dialog.get_by_label("Template").select_option("1")
    dialog.get_by_role("button", name="Undo").click()
    expect(code).to_have_value(typed)
    dialog.get_by_role("button", name="Differences").click()
    dialog.get_by_role("button", name="Done").click()
    desk.draw()
    desk.until_drawn()
    assert RED_AND_BLUE in str(desk.newest()["recipe"]["prompt"])


def test_cancelling_stops_a_long_job(desk: Desk) -> None:
    desk.page.get_by_label("Model").select_option("flux-2-flex")
    desk.prompt.fill(RED_AND_BLUE)
    desk.button("Final (50 steps)").click()
    expect(desk.page.locator(".making img")).to_be_visible()
    desk.first_tile().get_by_role("button", name="Cancel").click()
    expect(desk.page.get_by_text("Cancelled; it cost nothing.")).to_be_visible()
    job = desk.api("/v1/jobs?limit=1")["jobs"][0]
    assert (job["state"], job["cost"]) == ("cancelled", 0)


def test_a_late_answer_to_a_cancellation_does_not_revive_the_job(desk: Desk) -> None:
    held: list[tuple[Route, APIResponse]] = []
    desk.page.route("**/cancel", lambda route: held.append((route, route.fetch())))
    desk.page.get_by_label("Model").select_option("flux-2-flex")
    desk.prompt.fill(RED_AND_BLUE)
    desk.button("Final (50 steps)").click()
    expect(desk.page.locator(".making img")).to_be_visible()
    desk.first_tile().get_by_role("button", name="Cancel").click()
    cancelled = desk.page.get_by_text("Cancelled; it cost nothing.")
    expect(cancelled).to_be_visible()
    route, answer = held.pop()
    with desk.page.expect_response("**/cancel") as response:
        route.fulfill(response=answer, json=answer.json() | {"state": "running"})
    response.value.finished()
    desk.page.evaluate("new Promise((done) => setTimeout(done, 500))")
    assert cancelled.is_visible()


def test_flex_previews_and_finishes_with_one_seed(desk: Desk) -> None:
    desk.page.get_by_label("Model").select_option("flux-2-flex")
    desk.prompt.fill(RED_AND_BLUE)
    desk.button("Preview (6 steps)").click()
    desk.until_drawn()
    preview = desk.newest()
    assert preview["steps"] == 6
    seed = desk.page.get_by_label("Seed", exact=True).input_value()
    assert int(seed) == preview["seed"]


def test_a_storyboard_of_three_frames(desk: Desk) -> None:
    desk.go("Series")
    desk.button("Show me an example").click()
    desk.button("Draw the story").click()
    frames = desk.page.locator(".frame")
    expect(frames.locator(".tile.ready")).to_have_count(3)
    expect(desk.page.get_by_text("complete", exact=True)).to_be_visible()
    story = desk.api("/v1/series")["series"][0]
    assert story["story"]["characters"]["hero"]["description"] == "a small matte blue cube"
    assert len({frame["job"]["seed"] for frame in story["frames"]}) == 1
    desk.page.get_by_role("button", name="Draw again").first.click()
    expect(desk.page.get_by_text("being drawn")).to_be_visible()
    expect(frames.locator(".tile.ready")).to_have_count(3)
    again = desk.api(f"/v1/series/{story['id']}")
    assert again["frames"][0]["job"]["id"] != story["frames"][0]["job"]["id"]
    assert again["frames"][1]["job"]["id"] == story["frames"][1]["job"]["id"]
    desk.button("Add a frame").click()
    desk.page.get_by_role("textbox", name="Frame 4").fill("@hero on a teal floor")
    desk.button("Draw this frame").click()
    expect(frames.locator(".tile.ready")).to_have_count(4)
    again = desk.api(f"/v1/series/{story['id']}")
    with desk.page.expect_download() as download:
        desk.button("Zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*(f"frame-0{number}.png" for number in range(1, 5)), "sheet.png", "story.toml"]
        for number, frame in enumerate(again["frames"], start=1):
            assert archive.read(f"frame-{number:02}.png") == desk.file(frame["job"]["id"])
        told = Story.from_dict(tomllib.loads(archive.read("story.toml").decode()))
        assert (told.title, len(told.frames)) == ("A cube goes for a walk", 4)
        assert [frame.seed for frame in told.frames] == [frame["job"]["seed"] for frame in again["frames"]]
        credentials = provenance.read(archive.read("sheet.png"), "PNG")
        assert (credentials.state, credentials.ingredients) == ("valid", 4)


def test_a_mask_and_a_wider_picture(desk: Desk) -> None:
    desk.draw(RED_AND_BLUE)
    desk.until_drawn()
    desk.first_tile().hover()
    desk.first_tile().get_by_role("button", name="Edit this").click()
    desk.button("Mask and extend").click()
    canvas = desk.page.locator(".painter canvas")
    box = canvas.bounding_box()
    assert box is not None
    desk.page.mouse.move(box["x"] + 40, box["y"] + 60)
    desk.page.mouse.down()
    desk.page.mouse.move(box["x"] + 160, box["y"] + 90, steps=4)
    desk.page.mouse.up()
    # the same with keys
    canvas.focus()
    for key in ("ArrowDown", "ArrowDown", " ", "Shift+ArrowRight"):
        canvas.press(key)
    handle = desk.page.locator(".border.right").bounding_box()
    assert handle is not None
    desk.page.mouse.move(handle["x"] + 12, handle["y"] + 60)
    desk.page.mouse.down()
    desk.page.mouse.move(handle["x"] + 100, handle["y"] + 60, steps=4)
    desk.page.mouse.up()
    wider = int(desk.page.get_by_label("right", exact=True).input_value())
    assert wider > 0
    assert wider % 16 == 0
    desk.button("Use it").click()
    expect(desk.page.get_by_text("only where it is painted, and beyond its borders")).to_be_visible()
    with desk.page.expect_request("**/v1/jobs") as sent:
        desk.draw("a large shiny green sphere to the left of a small matte blue cube on a gray floor")
    body = sent.value.post_data_json
    assert body is not None
    desk.until_drawn()
    made = desk.newest()
    assert (made["width"], made["height"]) == (256 + wider, 256)
    mask = Image.open(io.BytesIO(base64.b64decode(body["mask"].partition(",")[2]))).convert("L")
    assert mask.size == (256, 256)
    assert {0, 255} == {value for _, value in mask.getcolors() or []}


def _until_gone(desk: Desk) -> None:
    """The service has none of the desk's jobs any more."""
    end = time.monotonic() + 60
    while jobs := desk.api("/v1/jobs?limit=500")["jobs"]:
        assert time.monotonic() < end, f"a live picture stayed behind: {jobs}"
        desk.page.wait_for_timeout(100)


def test_live_mode_follows_the_words_and_leaves_nothing_behind(desk: Desk) -> None:
    models: list[str] = []
    desk.page.on("response", lambda told: models.append(told.json()["model"]) if queued(told) else None)
    desk.page.get_by_role("switch", name="Live").click()
    expect(desk.page.get_by_text("Each sketch costs")).to_be_visible()
    desk.prompt.fill("a large matte orange cone on a teal floor")
    shown = desk.page.locator("figure.live img")
    expect(desk.page.get_by_text("Live picture drawn")).to_be_attached()
    first = shown.get_attribute("src")
    assert first is not None
    # what the page says of the first picture stays until the second is there: wait for the request itself
    with desk.page.expect_response(queued):
        desk.prompt.fill("a large shiny yellow sphere on a teal floor")
    _until_gone(desk)
    expect(shown).not_to_have_attribute("src", first)
    # the page needs the service no more to show it
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert models == ["flux-2-klein-4b"] * 2


def test_a_live_picture_that_is_asked_for_in_vain_stays_nowhere(desk: Desk) -> None:
    """The request is on its way while the words change; the answer finds nobody who wants it."""
    held: list[Route] = []
    desk.page.route("**/v1/jobs", lambda route: route.continue_() if held else held.append(route))
    desk.page.get_by_role("switch", name="Live").click()
    with desk.page.expect_request("**/v1/jobs"):
        desk.prompt.fill("a large matte orange cone on a teal floor")
    with desk.page.expect_response(queued):
        desk.prompt.fill("a large shiny yellow sphere on a teal floor")
    with desk.page.expect_response(queued):
        held[0].continue_()
    desk.go("Gallery")
    _until_gone(desk)


def test_no_list_shows_a_live_picture_that_is_being_removed(desk: Desk) -> None:
    held: list[Route] = []
    pattern = re.compile(r"/v1/jobs/[\w-]+$")
    desk.page.route(
        pattern, lambda route: held.append(route) if route.request.method == "DELETE" else route.continue_()
    )
    desk.page.get_by_role("switch", name="Live").click()
    with desk.page.expect_request(lambda asked: asked.method == "DELETE"):
        desk.prompt.fill("a large matte orange cone on a teal floor")
    assert [picture["id"] for picture in desk.api("/v1/gallery")["pictures"]] != []
    desk.go("Gallery")
    expect(desk.page.get_by_text("No pictures yet.")).to_be_visible()
    held[0].continue_()
    _until_gone(desk)


def test_a_vote_in_the_arena(desk: Desk) -> None:
    desk.go("Arena")
    desk.page.locator(".duel").get_by_label("Prompt").fill("a large shiny yellow sphere on a teal floor")
    votes = desk.api("/v1/arena")["votes"]
    expect(desk.page.locator(".cost")).to_contain_text("10 credits")
    desk.button("Draw both").click()
    expect(desk.page.locator(".battle")).to_be_visible()
    # the pictures are paid for: they are there after a reload
    desk.page.reload()
    expect(desk.page.locator(".side img")).to_have_count(2)
    expect(desk.page.locator(".battle").get_by_text("flux-2-flex, 6 steps")).to_have_count(0)
    desk.button("A is better").click()
    expect(desk.page.locator(".side.won")).to_be_visible()
    expect(desk.page.locator(".sides")).to_contain_text("flux-2-flex, 6 steps")
    expect(desk.page.locator(".standings tbody tr")).to_have_count(2)
    dots = desk.page.locator(".rate .dot").evaluate_all("dots => dots.map((dot) => dot.style.left)")
    assert dots == ["100%", "0%"]
    assert desk.api("/v1/arena")["votes"] == votes + 1


def test_a_good_file_and_a_tampered_one(desk: Desk) -> None:
    desk.draw("a large matte blue cube on a beige floor, light from the right")
    desk.until_drawn()
    good = desk.file(desk.newest()["id"])
    image = Image.open(io.BytesIO(good))
    stripped = io.BytesIO()
    image.convert("RGB").save(stripped, "PNG")
    desk.go("Verify")
    chosen = desk.page.get_by_label("Files to verify")
    desk.expected = ["422"]
    for name, data, words in (
        ("good.png", good, "unchanged"),
        ("stripped.png", stripped.getvalue(), "No signature"),
        ("plain.png", png("#2a56c8"), "Nothing in this file says where it comes from."),
    ):
        chosen.set_input_files({"name": name, "mimeType": "image/png", "buffer": data})
        report = desk.page.locator(".report").first
        expect(report.locator(".file")).to_have_text(name)
        expect(report.get_by_role("heading")).to_contain_text(words)
    chosen.set_input_files({"name": "tampered.png", "mimeType": "image/png", "buffer": _repainted(good)})
    report = desk.page.locator(".report.bad").first
    expect(report.get_by_role("heading")).to_have_text("This file was changed after it was signed.")
    chosen.set_input_files({"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(desk.page.get_by_role("alert")).to_contain_text("broken.png")


def _repainted(signed: bytes) -> bytes:
    """The credentials of a picture on other pixels: what somebody does who wants to lend them to a lie."""
    chunks, at = [], 8
    while at < len(signed):
        length = int.from_bytes(signed[at : at + 4], "big")
        chunks.append((signed[at + 4 : at + 8], signed[at : at + 12 + length]))
        at += 12 + length
    image = Image.open(io.BytesIO(signed)).convert("RGB")
    image.paste((200, 30, 30), (10, 10, 60, 60))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    other = buffer.getvalue()
    data = other[other.index(b"IDAT") - 4 : other.index(b"IEND") - 4]
    before = b"".join(raw for kind, raw in chunks if kind not in (b"IDAT", b"IEND"))
    end = next(raw for kind, raw in chunks if kind == b"IEND")
    return signed[:8] + before + data + end


def test_two_pictures_under_a_slider(desk: Desk) -> None:
    for prompt in ("a large matte orange cone on a teal floor", "a large shiny yellow sphere on a teal floor"):
        desk.draw(prompt)
        desk.until_drawn()
    desk.go("Gallery")
    desk.page.get_by_role("switch", name="Compare two").click()
    pictures = desk.page.locator(".grid .open")
    pictures.nth(0).click()
    pictures.nth(1).click()
    slider = desk.page.get_by_role("slider", name="How much of the first picture is shown")
    slider.fill("20")
    assert desk.page.locator(".slider img").last.evaluate("image => image.style.clipPath") == "inset(0px 80% 0px 0px)"
    desk.page.keyboard.press("Escape")
    expect(slider).to_have_count(0)


def test_administration(desk: Desk) -> None:
    desk.go("Admin")
    expect(desk.page.locator(".plot svg")).to_have_count(2)
    desk.button("New key").click()
    dialog = desk.page.get_by_role("dialog")
    name = f"<b>{secrets.token_hex(4)}</b>"
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Credits").fill("5")
    desk.button("Make the key").click()
    text = dialog.locator("output").inner_text()
    dialog.get_by_role("button", name="Done").click()
    row = desk.page.get_by_role("row", name=name)
    expect(row).to_contain_text("5")
    with desk.served.client() as client:
        assert client.get("/v1/about", headers={"x-key": text}).status_code == 200
        assert client.get("/v1/admin/keys", headers={"x-key": text}).status_code == 403
        row.get_by_role("button", name="Revoke").click()
        dialog.get_by_role("button", name="Revoke").click()
        expect(row).to_contain_text("revoked")
        assert client.get("/v1/about", headers={"x-key": text}).status_code == 403


def test_whoever_may_not_administer_sees_no_such_view(open_desk: OpenDesk) -> None:
    desk = open_desk()
    with desk.served.client() as client:
        text = client.post("/v1/admin/keys", json={"name": "guest"}).json()["text"]
    desk.page.evaluate(f"sessionStorage.setItem('licht.key', '{text}')")
    desk.page.reload()
    expect(desk.page.get_by_role("link", name="Verify")).to_be_visible()
    expect(desk.page.get_by_text("nano", exact=True)).to_be_visible()
    expect(desk.page.get_by_role("link", name="Admin")).to_have_count(0)
