import asyncio
import base64

from tests.service.api.conftest import Build, Service
from tests.service.api.pictures import shaded
from tests.service.api.test_native import create


def test_a_file_is_known_by_its_bytes(service: Service) -> None:
    service.drawer.picture = shaded()
    job = create(service, output_format="png")["id"]
    service.work()
    data = service.client.get(f"/v1/jobs/{job}/picture").content
    told = service.client.post("/v1/verify", content=data, headers={"content-type": "image/png"}).json()
    assert told["known"]["job"] == job
    assert (told["c2pa"]["state"], len(told["pdq"])) == ("none", 64)
    assert service.client.post("/v1/verify", json={"image": f"job:{job}"}).json() == told
    other = {"x-key": service.parts.keys.create("other").text, "content-type": "image/png"}
    assert service.client.post("/v1/verify", content=data, headers=other).json()["known"] is None


def test_json_and_bytes_say_the_same(service: Service) -> None:
    data = shaded()
    encoded = base64.b64encode(data).decode()
    sent = service.client.post("/v1/verify", json={"image": encoded}).json()
    raw = service.client.post("/v1/verify", content=data, headers={"content-type": "application/octet-stream"}).json()
    assert sent == raw
    assert sent["known"] is None


def test_what_is_no_picture(service: Service) -> None:
    for content, kind in (
        (b"hello", "image/png"),
        (b'{"image": "!!"}', "application/json"),
        (b"{}", "application/json"),
        (b"\xff", "application/json"),
        (b'{"image": "aGVsbG8="}', "application/json"),
    ):
        response = service.client.post("/v1/verify", content=content, headers={"content-type": kind})
        assert response.status_code == 422, content
        assert response.json()["code"] in ("invalid_image", "invalid_request")


def test_by_setting_whoever_has_the_file_may_ask(build: Build) -> None:
    data, kind = shaded(), {"content-type": "image/png"}
    encoded = base64.b64encode(data).decode()
    shut, opened = build(), build(verify__open="true")
    for service in (shut, opened):
        del service.client.headers["x-key"]
    assert shut.client.post("/v1/verify", content=data, headers=kind).status_code == 403
    told = opened.client.post("/v1/verify", content=data, headers=kind)
    assert (told.status_code, told.json()["known"]) == (200, None)
    for image in (encoded, f"data:image/png;base64,{encoded}"):
        assert opened.client.post("/v1/verify", json={"image": image}).json() == told.json()
    for elsewhere in ("http://localhost/cube.png", "job:12", "ref:12", "DATA:text/plain;base64,aGk="):
        assert opened.client.post("/v1/verify", json={"image": elsewhere}).status_code == 403
    assert opened.client.get("/v1/gallery").status_code == 403
    wrong = {**kind, "x-key": opened.key[:-1] + "x"}
    assert opened.client.post("/v1/verify", content=data, headers=wrong).status_code in (403, 422)


def test_who_has_no_key_does_not_queue_up(build: Build) -> None:
    service = build(verify__open="true")
    key = service.client.headers.pop("x-key")
    service.app.state.examining = asyncio.Semaphore(0)
    response = service.client.post("/v1/verify", content=shaded(), headers={"content-type": "image/png"})
    assert (response.status_code, response.json()["code"]) == (503, "not_available")
    assert key
