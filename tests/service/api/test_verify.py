import base64
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from licht.service.api.verify import KnownView, _verdict
from licht.service.queue.looks import Answer, Look, sealed, unsealed
from licht.service.worker.tasks import payload_of
from tests.service.api.conftest import Build, Service
from tests.service.api.pictures import shaded
from tests.service.api.test_native import create

Looking = Callable[[Service], None]


@pytest.fixture
def seeing(service: Service, looking: Looking) -> Service:
    """A service whose pictures are looked at."""
    looking(service)
    return service


def test_a_file_is_known_by_its_bytes(seeing: Service) -> None:
    service = seeing
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


def test_a_changed_file_is_known_by_the_job_that_its_mark_names(service: Service) -> None:
    job = create(service, output_format="png")["id"]
    payload = f"{payload_of(job):016x}"
    report = {"c2pa": {"state": "none"}, "watermark": None, "pdq": None, "agrees": None}
    record = {"at": 12.0, "payload": payload, "distance": 9}

    def told(key_id: str, known: dict[str, Any]) -> KnownView | None:
        key = service.parts.keys.get(key_id)
        return _verdict(service.parts, key, b"another file", Answer({**report, "known": known})).known

    # a job that is not finished has no picture yet
    assert told(service.key_id, record) == KnownView(job=None, created_at=12.0, distance=9)
    service.work()
    assert told(service.key_id, record) == KnownView(job=job, created_at=12.0, distance=9)
    assert told(service.parts.keys.create("other").key.id, record) == KnownView(job=None, created_at=12.0, distance=9)
    for unknown in (None, "0" * 16):
        assert told(service.key_id, {**record, "payload": unknown}) == KnownView(job=None, created_at=12.0, distance=9)


def test_json_and_bytes_say_the_same(seeing: Service) -> None:
    service = seeing
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


def test_by_setting_whoever_has_the_file_may_ask(build: Build, looking: Looking) -> None:
    data, kind = shaded(), {"content-type": "image/png"}
    encoded = base64.b64encode(data).decode()
    shut, opened = build(), build(verify__open="true")
    looking(opened)
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
    del service.client.headers["x-key"]
    service.parts.looks.submit(None, "00" * 32, most=1)
    response = service.client.post("/v1/verify", content=shaded(), headers={"content-type": "image/png"})
    assert (response.status_code, response.json()["code"]) == (503, "not_available")
    assert "another picture" in response.json()["message"]


def test_a_key_waits_for_as_many_looks_as_for_jobs(build: Build) -> None:
    service = build(keys__active_limit=2)
    for _ in range(2):
        service.parts.looks.submit(service.key_id, "00" * 32, most=2)
    response = service.client.post("/v1/verify", content=shaded(), headers={"content-type": "image/png"})
    assert (response.status_code, response.json()["code"]) == (429, "too_many_jobs")
    assert "retry-after" in response.headers


def test_without_a_worker_nobody_waits_for_ever_and_nothing_is_kept(build: Build) -> None:
    service = build(verify__wait_s=0.05)
    response = service.client.post("/v1/verify", content=shaded(), headers={"content-type": "image/png"})
    assert (response.status_code, response.json()["code"]) == (503, "not_available")
    assert kept(service) == []


def test_the_service_answers_others_while_a_picture_is_looked_at(service: Service) -> None:
    kind = {"content-type": "image/png"}
    answers: list[int] = []
    asking = threading.Thread(
        target=lambda: answers.append(service.client.post("/v1/verify", content=shaded(), headers=kind).status_code)
    )
    asking.start()
    looks, found = service.parts.looks, list[Look]()

    def claimed() -> bool:
        look = looks.claim("w")
        found.extend([look] if look is not None else [])
        return bool(found)

    service.until(claimed)
    assert service.client.get("/v1/credits").status_code == 200
    assert unsealed(service.parts.storage.get(found[0].digest)) == shaded()
    looks.finish(found[0], Answer(error_code="not_available", error="not today"))
    asking.join()
    assert answers == [503]
    assert kept(service) == []


def test_what_is_looked_at_is_free_and_no_job(seeing: Service) -> None:
    before = seeing.client.get("/v1/credits").json()
    assert seeing.client.post("/v1/verify", content=shaded(), headers={"content-type": "image/png"}).status_code == 200
    assert seeing.client.get("/v1/credits").json() == before
    assert seeing.client.get("/v1/jobs").json() == {"jobs": []}
    assert kept(seeing) == []


def test_a_file_is_stored_under_a_hash_of_its_own() -> None:
    assert unsealed(sealed(b"file")) == b"file"
    assert sealed(b"file") != sealed(b"file")


def kept(service: Service) -> list[Path]:
    """The stored files."""
    return [path for path in (service.parts.settings.data / "blobs").rglob("*") if path.is_file()]
