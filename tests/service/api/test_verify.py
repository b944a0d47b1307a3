import base64

from tests.service.api.conftest import Service
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
