import base64
import io
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from licht.core.request import Role
from licht.core.sizes import Size
from licht.service.api.draft import Draft
from licht.service.api.prepare import settle_size
from licht.service.queue.previews import PreviewRow
from licht.service.settings import built_in_tiers
from tests.service.api.conftest import HOST, Build, Service
from tests.service.api.pictures import encoded


def picture(width: int = 64, height: int = 64, file_format: str = "PNG", colour: str = "red") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, file_format)
    return base64.b64encode(buffer.getvalue()).decode()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_submit_poll_fetch(service: Service) -> None:
    told = service.submit(seed=7, width=128)
    assert set(told) == {"id", "polling_url", "cost", "input_mp", "output_mp"}
    assert told["polling_url"] == f"{HOST}/v1/get_result?id={told['id']}"
    assert (told["cost"], told["input_mp"], told["output_mp"]) == (3.0, 0.0, 0.01)
    pending = service.client.get(told["polling_url"], headers={"x-key": ""}).json()
    assert pending == {
        "id": told["id"],
        "status": "Pending",
        "result": None,
        "progress": 0.0,
        "details": {"queue_position": 0},
        "preview": None,
    }
    service.work()
    ready = service.client.get(told["polling_url"]).json()
    assert (ready["status"], ready["progress"], ready["cost"]) == ("Ready", 1.0, 3.0)
    result = ready["result"]
    assert (result["prompt"], result["seed"], result["width"]) == ("a red sphere", 7, 128)
    assert result["duration"] == result["end_time"] - result["start_time"] >= 0
    told_of = {"model": "fake", "warnings": [], "prompt_upsampled": False, "candidates": 1, "ranker": None}
    assert ready["details"] == told_of
    assert result["sample"].startswith(HOST)
    fetched = service.client.get(result["sample"], headers={"x-key": ""})
    looked = service.client.head(result["sample"], headers={"x-key": ""})
    assert looked.status_code == fetched.status_code
    assert {**looked.headers, "x-request-id": ""} == {**fetched.headers, "x-request-id": ""}
    assert service.client.head(result["sample"] + "0").status_code == 403
    assert (fetched.status_code, fetched.headers["content-type"]) == (200, "image/jpeg")
    assert fetched.headers["x-content-type-options"] == "nosniff"
    assert fetched.headers["content-disposition"].startswith("attachment")
    assert opened(fetched.content).size == (128, 64)


def test_every_route_draws(service: Service) -> None:
    for route, tier in built_in_tiers().items():
        changes: dict[str, Any] = {"image": rgba()} if route == "flux-pro-1.0-fill" else {}
        changes |= {"image": encoded(), "top": 16, "width": 0, "height": 0} if route == "flux-pro-1.0-expand" else {}
        told = service.submit(route, output_format="png", **changes)
        service.work()
        assert service.poll(told["id"])["status"] == "Ready", route
        assert told["cost"] == tier.first_mp


def test_what_the_official_client_sends_is_taken(service: Service) -> None:
    told = service.submit(
        "flux-dev", safety_tolerance=2, prompt_upsampling=False, output_format="jpeg", raw=True, negative_prompt="x",
        image_prompt=None, webhook_url=None, webhook_secret=None, seed=2**64 - 1, user="me",
    )  # fmt: skip
    service.work()
    assert service.poll(told["id"])["result"]["seed"] == 2**64 - 1
    assert service.drawer.tolerances == [2]


@pytest.mark.parametrize("header", ["x-key", "X-Key", "api-key", "Authorization"])
def test_ways_to_send_a_key(service: Service, header: str) -> None:
    value = f"Bearer {service.key}" if header == "Authorization" else service.key
    del service.client.headers["x-key"]
    assert service.client.get("/v1/credits", headers={header: value}).status_code == 200


def test_bad_keys(service: Service) -> None:
    del service.client.headers["x-key"]
    for headers, status, detail in (
        ({}, 403, "Not authenticated"),
        ({"Authorization": "Basic abc"}, 403, "Not authenticated"),
        ({"x-key": "nonsense"}, 422, "Invalid API key format"),
        ({"x-key": service.key[:-1] + ("a" if service.key[-1] != "a" else "b")}, 422, "Invalid API key format"),
    ):
        response = service.client.post("/v1/flux-2-pro", json={"prompt": "a"}, headers=headers)
        assert (response.status_code, response.json()["detail"]) == (status, detail)
        assert response.json()["message"] == detail
    service.parts.keys.revoke(service.key_id)
    response = service.client.get("/v1/credits", headers={"x-key": service.key})
    assert (response.status_code, response.json()["detail"]) == (403, "Not authenticated")


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({}, ["body", "prompt"]),
        ({"prompt": 3}, ["body", "prompt"]),
        ({"prompt": "a", "width": 63}, ["body", "width"]),
        ({"prompt": "a", "height": -1}, ["body", "height"]),
        ({"prompt": "a", "width": 4096, "height": 4096}, ["body", "size"]),
        ({"prompt": "a", "width": 2048, "height": 64}, ["body", "size"]),
        ({"prompt": "a", "seed": 2**64}, ["body", "seed"]),
        ({"prompt": "a", "steps": 51}, ["body", "steps"]),
        ({"prompt": "a", "guidance": "nan"}, ["body", "guidance"]),
        ({"prompt": "a", "safety_tolerance": 6}, ["body", "safety_tolerance"]),
        ({"prompt": "a", "output_format": "gif"}, ["body", "output_format"]),
        ({"prompt": "a", "aspect_ratio": "wide"}, ["body", "aspect_ratio"]),
        ({"prompt": "a", "aspect_ratio": "100:1"}, ["body", "size"]),
        ({"prompt": "a", "input_image": "!!!"}, ["body", "input_image"]),
        ({"prompt": "a", "input_image_3": "aGVsbG8="}, ["body", "input_image_3"]),
        ({"prompt": "a", "input_image": "file:///etc/passwd"}, ["body", "input_image"]),
        ({"prompt": "a", "mask": "abc"}, ["body", "mask"]),
        ({"prompt": "a", "webhook_url": "ftp://example.org"}, ["body", "webhook_url"]),
        ({"prompt": "a", "webhook_url": "http://u:p@example.org"}, ["body", "webhook_url"]),
        ({"prompt": "a", "webhook_url": "https://example.org", "webhook_secret": "a\nb"}, ["body", "webhook_secret"]),
        ({"prompt": "a\x00b"}, ["body", "prompt"]),
        ({"prompt": "a" * 40000}, ["body", "prompt"]),
    ],
)
def test_bad_bodies_name_the_field(service: Service, body: dict[str, Any], location: list[str]) -> None:
    response = service.client.post("/v1/flux-2-pro", json=body)
    assert response.status_code == 422
    told = response.json()
    assert told["detail"][0]["loc"] == location
    assert set(told["detail"][0]) == {"loc", "msg", "type"}
    assert told["message"]
    assert service.parts.store.recent(service.key_id) == []


def test_the_missing_field_as_the_hosted_api_words_it(service: Service) -> None:
    told = service.client.post("/v1/flux-2-pro", json={}).json()
    assert told["detail"] == [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
     b'{"prompt": "\\ud800"}', b'{"prompt": "a", "guidance": NaN}', b'{"prompt": "a", "width": 1e999}'],
)  # fmt: skip
def test_broken_json_is_the_callers_mistake(service: Service, content: bytes) -> None:
    response = service.client.post("/v1/flux-2-pro", content=content, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["message"]


def test_a_form_is_no_json(service: Service) -> None:
    """What a page elsewhere can make a browser send without asking is not taken."""
    response = service.client.post("/v1/flux-2-pro", content=b'{"prompt": "a"}', headers={"content-type": "text/plain"})
    assert response.status_code == 422


def test_pictures_in(service: Service) -> None:
    told = service.submit(
        "flux-2-klein-4b",
        width=0,
        height=None,
        input_image=picture(200, 100),
        input_image_2="data:image/jpeg;base64," + picture(64, 64, "JPEG", "blue"),
        input_image_4=picture(1200, 1200, "WEBP"),
        input_image_5="",
    )
    # first MP, and one further MP for each of three pictures, the last of which has two
    assert told["cost"] == pytest.approx(1.4 + 4 * 0.1)
    assert (told["input_mp"], told["output_mp"]) == (1.46, 0.02)
    service.work()
    (request,) = service.drawer.requests
    assert [(each.name, str(each.picture.size)) for each in request.references] == [
        ("image 1", "200x100"),
        ("image 2", "64x64"),
        ("image 3", "1200x1200"),
    ]
    assert str(request.size) == "192x96"
    assert request.references[0].picture.rgb[:3] == b"\xff\x00\x00"


def test_surplus_pictures_are_no_error(build: Build) -> None:
    service = build(tiers={"flux-2-klein-4b": {"max_references": 1}})
    told = service.submit("flux-2-klein-4b", input_image=picture(), input_image_2=picture(colour="blue"))
    service.work()
    assert len(service.drawer.requests[0].references) == 1
    (warning,) = service.poll(told["id"])["details"]["warnings"]
    assert warning == "2 pictures were given and flux-2-klein-4b takes 1: the first ones were used"


@pytest.mark.parametrize(
    ("width", "height", "ratio", "reference", "expected"),
    [
        (0, 0, None, None, "1024x1024"),
        (1920, 1080, None, None, "1920x1072"),
        (768, 512, "3:2", Size(100, 100), "768x512"),
        (0, 0, "16:9", Size(100, 100), "1360x768"),
        (0, 0, "1:1", None, "1024x1024"),
        (0, 0, None, Size(512, 340), "512x336"),
        (0, 0, None, Size(4000, 3000), "2352x1760"),
        (512, 0, None, Size(200, 100), "512x256"),
        (0, 512, "1:2", None, "256x512"),
    ],
)
def test_sizes(width: int, height: int, ratio: str | None, reference: Size | None, expected: str) -> None:
    draft = Draft("flux-2-pro", "a", width=width, height=height, aspect_ratio=ratio)
    assert str(settle_size(draft, built_in_tiers()["flux-2-pro"], reference)) == expected


@pytest.mark.parametrize(
    ("prompt", "status", "details"),
    [
        ("refuse-request", "Request Moderated", {"Moderation Reasons": ["not in this house"]}),
        ("refuse-picture", "Content Moderated", {"Moderation Reasons": ["not out of this house"]}),
        ("invalid", "Error", {"error": "the model cannot do that", "code": "invalid_request"}),
    ],
)
def test_what_goes_wrong_is_free(service: Service, prompt: str, status: str, details: dict[str, Any]) -> None:
    service.parts.keys.add_credits(service.key_id, 5000)
    told = service.submit(prompt=prompt)
    service.work()
    polled = service.poll(told["id"])
    assert (polled["status"], polled["result"], polled["details"]) == (status, None, details)
    assert "cost" not in polled
    assert service.client.get("/v1/credits").json() == {"credits": 5.0}


def test_a_librarys_words_stay_inside(build: Build) -> None:
    service = build(queue__max_attempts=1)
    told = service.submit(prompt="defect")
    service.work()
    polled = service.client.get(told["polling_url"])
    assert "secret inside" not in polled.text
    assert polled.json()["details"] == {"error": "the picture could not be drawn", "code": "internal_error"}


def test_an_unknown_task(service: Service) -> None:
    for job_id in ("nothing", "../../etc/passwd", "\0", "a" * 200):
        response = service.client.get("/v1/get_result", params={"id": job_id})
        assert response.status_code == 404
        assert (response.json()["status"], response.json()["id"]) == ("Task not found", job_id)
    assert service.client.get("/v1/get_result").status_code == 422


def test_credits_run_out(service: Service) -> None:
    assert service.client.get("/v1/credits").json() == {"credits": 999_999_999.0}
    service.parts.keys.add_credits(service.key_id, 7000)
    service.submit()
    service.work()
    assert service.client.get("/v1/credits").json() == {"credits": 4.0}
    service.submit()
    response = service.client.post("/v1/flux-2-pro", json={"prompt": "a"})
    assert (response.status_code, response.json()["detail"]) == (402, "Insufficient credits")


def test_too_many_active_tasks(build: Build) -> None:
    service = build(keys__active_limit=2)
    service.submit()
    service.submit()
    response = service.client.post("/v1/flux-2-pro", json={"prompt": "a"})
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
    assert "2 jobs of this key are active" in response.json()["detail"]


def test_links_expire_and_cannot_be_changed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = service.submit(), service.submit()
    service.work()
    link = service.poll(first["id"])["result"]["sample"]
    assert service.client.get(link).status_code == 200
    for changed in (
        link.replace(first["id"], second["id"]),
        re.sub(r"expires=(\d+)", lambda found: f"expires={int(found[1]) + 1}", link),
        link[:-1] + ("0" if link[-1] != "0" else "1"),
        link.partition("?")[0],
        service.parts.__class__.result_link(service.parts, HOST, first["id"]).replace("expires=", "expires=-"),
    ):
        assert service.client.get(changed).status_code in (403, 422)
    expired = int(service.parts.clock()) - 1
    from licht.service import links

    link = links.sign(service.parts.link_secret, HOST, first["id"], expired)
    assert service.client.get(link).status_code == 403


def test_urls_follow_the_client_or_the_settings(build: Build) -> None:
    service = build(server__allowed_hosts=["*"])
    response = service.client.post("/v1/flux-2-pro", json={"prompt": "a"}, headers={"host": "flux.example:8443"})
    assert response.json()["polling_url"].startswith("http://flux.example:8443/v1/get_result?id=")
    forwarded = {"x-forwarded-proto": "https", "x-forwarded-host": "evil.example"}
    response = service.client.post("/v1/flux-2-pro", json={"prompt": "a"}, headers=forwarded)
    assert response.json()["polling_url"].startswith("http://localhost/")
    trusting = build(server__trusted_proxies=["testclient"])
    response = trusting.client.post("/v1/flux-2-pro", json={"prompt": "a"}, headers=forwarded)
    assert response.json()["polling_url"].startswith("https://evil.example/")
    public = build(server__public_url="https://flux.example")
    response = public.client.post("/v1/flux-2-pro", json={"prompt": "a"}, headers={"host": "flux.example"})
    assert response.json()["polling_url"].startswith("https://flux.example/")


def test_webhook_answers_have_both_shapes(service: Service) -> None:
    told = service.submit(webhook_url="https://example.org/hook")
    assert (told["status"], told["webhook_url"]) == ("Pending", "https://example.org/hook")
    assert "polling_url" in told


def test_idempotency(service: Service) -> None:
    body = {"prompt": "a", "width": 64, "height": 64}

    def post(_: int) -> str:
        response = service.client.post("/v1/flux-2-pro", json=body, headers={"Idempotency-Key": "one"})
        assert response.status_code == 200
        return response.text

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(post, range(50)))) == 1
    assert len(service.parts.store.recent(service.key_id)) == 1
    response = service.client.post("/v1/flux-2-pro", json={**body, "prompt": "b"}, headers={"Idempotency-Key": "one"})
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_conflict")
    response = service.client.post("/v1/flux-2-max", json=body, headers={"Idempotency-Key": "one"})
    assert response.status_code == 422
    response = service.client.post("/v1/flux-2-pro", json=body, headers={"Idempotency-Key": "a b"})
    assert response.status_code == 422


def test_extended_statuses_are_off_unless_they_are_asked_for(build: Build) -> None:
    for extended, statuses in ((False, ["Pending"] * 3), (True, ["Generating", "Reasoning", "Generating"])):
        service = build(protocol__extended_statuses=extended)
        told = service.submit()
        assert service.poll(told["id"])["status"] == "Pending"
        claim = service.parts.store.leases.claim("w")
        assert claim is not None
        seen = []
        for stage in ("", "upsample", "denoise"):
            service.parts.store.leases.keep(claim, stage, 0.1)
            seen.append(service.poll(told["id"])["status"])
        assert seen == statuses


def rgba(size: tuple[int, int] = (64, 64)) -> str:
    return encoded((0, 0, 0, 0), size, "RGBA")


def test_fill_draws_under_the_mask_or_where_the_picture_is_transparent(service: Service) -> None:
    for body in ({"image": encoded(), "mask": encoded((255, 255, 255))}, {"image": rgba()}):
        response = service.client.post("/v1/flux-pro-1.0-fill", json={**body, "steps": 15, "guidance": 60})
        assert (response.status_code, response.json()["cost"]) == (200, 5.0)
        service.work()
        request = service.drawer.requests[-1]
        assert request.mask is not None
        assert request.start is not None
        assert (request.prompt, set(request.mask.gray), request.references) == ("", {255}, ())


def test_expand_draws_around_the_picture(service: Service) -> None:
    response = service.client.post("/v1/flux-pro-1.0-expand", json={"image": encoded(), "left": 32, "bottom": 16})
    assert response.status_code == 200
    service.work()
    request = service.drawer.requests[-1]
    assert request.extend is not None
    assert (request.whole_size, request.mask, request.extend.left) == (Size(96, 80), None, 32)


def test_ultra_has_a_ratio_of_its_own(service: Service) -> None:
    job = service.client.post("/v1/flux-pro-1.1-ultra", json={"prompt": "a", "raw": True}).json()["id"]
    task = service.parts.store.get(job).task
    assert (task.width, task.height) == (1360, 768)


@pytest.mark.parametrize(
    ("route", "body", "location"),
    [
        ("flux-2-flex", {"prompt": "a", "guidance": 11}, ["guidance"]),
        ("flux-2-flex", {"prompt": "a", "guidance": 1.4}, ["guidance"]),
        ("flux-pro-1.0-fill", {"prompt": "a"}, ["image"]),
        ("flux-pro-1.0-fill", {"image": encoded()}, ["image"]),
        ("flux-pro-1.0-fill", {"image": encoded(), "mask": encoded(), "steps": 14}, ["steps"]),
        ("flux-pro-1.0-expand", {"image": encoded()}, ["extend"]),
        ("flux-pro-1.0-expand", {"image": encoded(), "top": 2049}, ["top"]),
        ("flux-2-pro", {"prompt": "a", "extend": {"left": 5}}, ["extend"]),
        ("flux-2-pro", {"prompt": "a", "mask": encoded((0, 0, 0)), "start": encoded()}, ["mask"]),
        ("flux-2-pro", {"prompt": "a", "mask": encoded(), "start": encoded(size=(64, 80))}, ["mask"]),
        ("flux-2-pro", {"prompt": "a", "mask": encoded(), "start": encoded(), "width": 128}, ["width"]),
        ("flux-2-pro", {"prompt": "a", "start_strength": 0}, ["start_strength"]),
        ("flux-2-pro", {"prompt": "@image2", "input_image": encoded()}, ["prompt"]),
        ("flux-2-pro", {"prompt": {"scene": 3}}, ["prompt", "scene"]),
        ("flux-2-pro", {"prompt": {}}, ["prompt"]),
        ("flux-2-pro", {"prompt": "a", "references": [{"image": encoded(), "role": "hero"}]}, ["references", 0, "role"]),
        ("flux-2-pro", {"prompt": "a", "references": [{"image": encoded(), "strength": 5}]},
         ["references", 0, "strength"]),
        ("flux-2-pro", {"prompt": "a", "finish": "vhs"}, ["finish"]),
    ],
)  # fmt: skip
def test_fields_of_some_routes_name_themselves(
    service: Service, route: str, body: dict[str, Any], location: list[str]
) -> None:
    response = service.client.post(f"/v1/{route}", json=body)
    assert response.status_code == 422, response.text
    assert response.json()["detail"][0]["loc"] == ["body", *location]


def test_every_extension_reaches_the_engine(service: Service) -> None:
    service.submit(
        prompt={"scene": "a ball", "style": "@image1"},
        input_image=encoded((1, 0, 0)),
        references=[{"image": encoded((2, 0, 0)), "role": "pose", "strength": 0}],
        start=encoded((3, 0, 0), (80, 80)),
        start_strength=0.25,
        steps=7,
        guidance=4.5,
        finish="phone",
        seed=1,
    )
    service.work()
    request = service.drawer.requests[-1]
    assert (request.steps, request.guidance, request.size) == (7, 4.5, Size(64, 64))
    assert [(each.picture.rgb[0], each.role, each.strength) for each in request.references] == [
        (1, None, 1.0), (2, Role.POSE, 0.0),
    ]  # fmt: skip
    assert request.start is not None
    assert (request.start.picture.rgb[0], request.start.strength) == (3, 0.25)
    assert request.prompt == '{"scene": "a ball", "style": "@image1"}'
    assert service.drawer.finishes == ["phone"]


def test_tiers_differ_in_what_they_do(service: Service) -> None:
    tasks = {
        name: service.parts.store.get(service.submit(name)["id"]).task
        for name in ("flux-2-pro", "flux-2-max", "flux-2-klein-4b")
    }
    assert {name: (task.candidates, task.step_factor, task.upsample) for name, task in tasks.items()} == {
        "flux-2-pro": (1, 1.0, True),
        "flux-2-max": (4, 2.0, True),
        "flux-2-klein-4b": (1, 1.0, False),
    }
    service.work()
    assert [len(request.seeds) for request in service.drawer.requests] == [1, 4, 1]
    assert service.drawer.requests[1].steps == 8
    quiet = service.parts.store.get(service.submit("flux-2-pro", disable_pup=True)["id"]).task
    assert not quiet.upsample
    asked = service.submit("flux-2-klein-4b", prompt_upsampling=True)
    service.work()
    assert "not configured" in service.poll(asked["id"])["details"]["warnings"][0]


def test_polling_shows_the_picture_in_the_making(service: Service) -> None:
    shown, plain = service.submit(previews=True)["id"], service.submit()["id"]
    assert service.poll(shown)["preview"] is None
    for job in (shown, plain):
        assert service.parts.store.leases.claim("w") is not None
        service.parts.previews.put(job, PreviewRow(2, 4, 8, 6, "image/png", b"file"))
    assert service.poll(shown)["preview"] == {
        "step": 2, "total": 4, "width": 8, "height": 6, "image": "data:image/png;base64,ZmlsZQ==",
    }  # fmt: skip
    assert service.poll(plain)["preview"] is None


def test_the_answer_says_how_the_picture_was_chosen(service: Service) -> None:
    told = service.submit()
    service.work()
    details = service.poll(told["id"])["details"]
    assert (details["candidates"], details["ranker"]) == (1, None)
