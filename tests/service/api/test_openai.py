import base64
import io
import json
import threading
from typing import Any

import pytest
from PIL import Image

from licht.core.sizes import Size
from licht.service.queue import waiting
from tests.service.api.conftest import Build, Service
from tests.service.api.pictures import png
from tests.service.conftest import PATIENCE_S


def generate(service: Service, **body: object) -> dict[str, Any]:
    response = service.client.post("/v1/images/generations", json={"prompt": "a ball", "size": "64x64", **body})
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def mask(size: tuple[int, int] = (64, 64)) -> bytes:
    """Transparent in its left half."""
    image = Image.new("RGBA", size, (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def edit(service: Service, files: list[tuple[str, Any]], **fields: str) -> dict[str, Any]:
    response = service.client.post("/v1/images/edits", files=files, data={"prompt": "make it blue", **fields})
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told


def test_a_picture_comes_with_the_answer(running: Service) -> None:
    told = generate(running, model="flux-2-klein-4b", seed=5, n=None, quality="high", style="vivid", user="me")
    assert (told["size"], told["output_format"], told["background"]) == ("64x64", "png", "opaque")
    image = decoded(told["data"][0]["b64_json"])
    assert (image.format, image.size, image.getpixel((0, 0))) == ("PNG", (64, 64), (5, 1, 2))
    assert set(told["data"][0]) == {"b64_json"}
    job = running.parts.store.recent(running.key_id)[0]
    assert (job.route, job.cost_milli) == ("flux-2-klein-4b", 1400)


def test_several_pictures_as_links(running: Service) -> None:
    told = generate(running, n=3, response_format="url", output_format="webp")
    links = [each["url"] for each in told["data"]]
    assert len(set(links)) == 3
    for link in links:
        answer = running.client.get(link, headers={"x-key": ""})
        assert answer.headers["content-type"] == "image/webp"


def test_the_model_reads_more_than_theirs(running: Service) -> None:
    generate(running, steps=2, aspect_ratio="1:1", finish="film", moderation="low", safety_tolerance=0)
    assert running.drawer.requests[-1].steps == 2
    assert (running.drawer.finishes[-1], running.drawer.tolerances[-1]) == ("film", 4)


@pytest.mark.parametrize("names", [["image"], ["image[]"], ["image[]", "image[]"], ["image", "image"]])
def test_edits_take_pictures_under_both_names(running: Service, names: list[str]) -> None:
    files = [(name, ("blob", png((number, 0, 0)), "image/png")) for number, name in enumerate(names)]
    told = edit(running, files, n="1", seed="9", input_fidelity="high")
    assert told["size"] == "64x64"
    request = running.drawer.requests[-1]
    assert [each.picture.rgb[0] for each in request.references] == list(range(len(names)))
    assert (request.seeds, request.start) == ((9,), None)


def test_a_mask_changes_what_is_transparent_in_the_first_picture(running: Service) -> None:
    files = [
        ("image[]", ("a.png", png((7, 0, 0)), "image/png")),
        ("image[]", ("b.png", png((8, 0, 0)), "image/png")),
        ("mask", ("m.png", mask(), "image/png")),
    ]
    assert edit(running, files, size="1024x1024")["size"] == "64x64"
    request = running.drawer.requests[-1]
    assert request.start is not None
    assert request.mask is not None
    assert (request.start.picture.rgb[0], [each.picture.rgb[0] for each in request.references]) == (7, [8])
    assert request.mask.gray[:64] == bytes([255] * 32 + [0] * 32)


def test_a_variation_needs_no_words(running: Service) -> None:
    response = running.client.post("/v1/images/variations", files={"image": ("x", png((3, 0, 0)))}, data={"n": "2"})
    assert len(response.json()["data"]) == 2
    request = running.drawer.requests[-1]
    assert (request.prompt, request.size) == ("Another picture like image 1.", Size(64, 64))


def stream(service: Service, **body: object) -> list[dict[str, Any]]:
    sent = {"prompt": "slow 0.1", "size": "64x64", "stream": True, **body}
    with service.client.stream("POST", "/v1/images/generations", json=sent) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    found = []
    for block in text.strip().split("\n\n"):
        *names, data = block.split("\n")
        told = json.loads(data.removeprefix("data: "))
        assert names in ([], [f"event: {told.get('type')}"])
        found.append(told)
    return found


def test_a_stream_shows_partial_pictures_and_then_the_picture(in_step: Service) -> None:
    found = stream(in_step, prompt="held", partial_images=2, seed=4)
    assert [each["type"].rpartition(".")[2] for each in found] == ["partial_image", "partial_image", "completed"]
    assert [each["partial_image_index"] for each in found[:2]] == [0, 1]
    assert decoded(found[0]["b64_json"]).size == (8, 8)
    assert decoded(found[2]["b64_json"]).getpixel((0, 0)) == (4, 1, 2)
    assert found[2]["usage"]["total_tokens"] == 0


def test_a_picture_that_is_streamed_stays_wanted_while_it_is_drawn(
    running: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, want = threading.Event(), running.parts.store.want

    def heard(job_id: str, for_s: float) -> None:
        want(job_id, for_s)
        said.set()

    monkeypatch.setattr(running.parts.store, "want", heard)
    monkeypatch.setattr(waiting, "_TOLD_PER_LEASE", 1e9)
    running.drawer.hold = lambda _step: None if said.wait(PATIENCE_S) else pytest.fail("it was given up")
    assert stream(running, prompt="held", partial_images=1)[-1]["type"] == "image_generation.completed"


def test_a_failure_in_a_stream_is_an_event(running: Service) -> None:
    found = stream(running, prompt="refuse-picture")
    assert [set(each) for each in found] == [{"error"}]
    assert found[0]["error"]["code"] == "moderation_blocked"


def test_models_are_the_tiers(running: Service) -> None:
    told = running.client.get("/v1/models").json()
    assert told["object"] == "list"
    assert "flux-2-pro" in {each["id"] for each in told["data"]}
    assert running.client.get("/v1/models/flux-2-max").json()["object"] == "model"
    missing = running.client.get("/v1/models/dall-e-3")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"prompt": "a", "model": "dall-e-3"}, 404, "model", "model_not_found"),
        ({}, 400, "prompt", "missing"),
        ({"prompt": "a", "n": 11}, 400, "n", "less_than_equal"),
        ({"prompt": "a", "size": "wide"}, 400, "size", "invalid_request"),
        ({"prompt": "a", "size": "32x32"}, 400, "width", "invalid_request"),
        ({"prompt": "a", "output_format": "gif"}, 400, "output_format", "literal_error"),
        ({"prompt": "a", "background": "transparent"}, 400, "background", "invalid_request"),
        ({"prompt": "a", "stream": True, "n": 2}, 400, "n", "invalid_request"),
        ({"prompt": "refuse-request", "size": "64x64"}, 400, "prompt", "moderation_blocked"),
        ({"prompt": "invalid", "size": "64x64"}, 400, None, "invalid_request"),
        ({"prompt": '{"scene": 3}'}, 400, "prompt.scene", "invalid_prompt"),
    ],
)
def test_errors_have_their_shape(
    running: Service, body: dict[str, Any], status: int, param: str | None, code: str
) -> None:
    response = running.client.post("/v1/images/generations", json=body)
    said = response.json()["error"]
    assert (response.status_code, said["param"], said["code"]) == (status, param, code)
    assert set(said) == {"message", "type", "param", "code"}
    assert said["message"]


def test_errors_of_forms_have_their_shape(running: Service) -> None:
    for files, data, param in (
        ([("image", ("x", png()))], {}, "prompt"),
        ([("other", ("x", png()))], {"prompt": "a"}, "image"),
        ([("image", ("x", b"hello"))], {"prompt": "a"}, "image"),
        ([("image", ("x", png())), ("mask", ("m", png()))], {"prompt": "a"}, "mask"),
        ([("image", ("x", png())), ("mask", ("m", mask((64, 80))))], {"prompt": "a"}, "mask"),
        ([("image", ("x", png()))], {"prompt": "a", "n": "many"}, "n"),
    ):
        response = running.client.post("/v1/images/edits", files=files, data=data)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    too_many = [("image[]", ("x", png()))] * 20
    assert running.client.post("/v1/images/edits", files=too_many, data={"prompt": "a"}).status_code == 400
    assert running.client.post("/v1/images/edits", content=b"x").status_code == 400


def test_keys_and_limits_have_their_shape(build: Build) -> None:
    service = build(keys__active_limit=1)
    poor = service.parts.keys.create("poor", credits_milli=500).text
    for headers, status, code in (
        ({"x-key": "", "Authorization": "Bearer nonsense"}, 401, "http_401"),
        ({"x-key": poor}, 429, "insufficient_quota"),
    ):
        response = service.client.post("/v1/images/generations", json={"prompt": "a"}, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    service.submit()
    response = service.client.post("/v1/images/generations", json={"prompt": "a"})
    assert (response.status_code, response.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert response.headers["retry-after"] == "2"


def test_a_repeated_call_gets_the_same_pictures(running: Service) -> None:
    body = {"prompt": "a", "n": 2, "size": "64x64"}
    first, again = (
        running.client.post("/v1/images/generations", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)
    )
    assert first.json() == again.json()
    assert len(running.parts.store.recent(running.key_id)) == 2
    other = running.client.post("/v1/images/generations", json={"prompt": "b"}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_conflict")


def test_quality_is_steps_where_nobody_counts_them(running: Service) -> None:
    for quality, steps in (("low", 2), ("medium", None), ("auto", None), ("hd", 8), ("high", 8)):
        told = generate(running, model="flux-2-klein-4b", quality=quality)
        assert (told["quality"], running.drawer.requests[-1].steps) == (quality, steps)
    generate(running, quality="high", steps=3)
    assert running.drawer.requests[-1].steps == 3
    assert generate(running)["quality"] == "auto"


def test_compression_is_for_files_that_lose_something(running: Service) -> None:
    generate(running, output_format="jpeg", output_compression=40)
    edit(running, [("image", ("a.png", png((1, 0, 0)), "image/png"))], output_format="webp", output_compression="0")
    generate(running, output_compression=100)
    jobs = running.parts.store.recent(running.key_id)
    assert [job.task.file_quality for job in reversed(jobs)] == [40, 1, 100]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("output_compression", 50),
        ("output_compression", 101),
        ("quality", "best"),
        ("style", "loud"),
        ("input_fidelity", "some"),
        ("background", "transparent"),
    ],
)
def test_what_their_api_does_not_take_is_named(service: Service, field: str, value: object) -> None:
    response = service.client.post("/v1/images/generations", json={"prompt": "a", field: value})
    assert (response.status_code, response.json()["error"]["param"]) == (400, field)
