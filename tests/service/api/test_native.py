import base64
import json
import re
import threading
from dataclasses import replace
from typing import Any

import pytest

from licht.service.api import native
from licht.service.api.auth import access_of
from licht.service.api.parts import Parts
from licht.service.queue.records import Job
from tests.service.api.conftest import Build, Service


def create(service: Service, **body: object) -> dict[str, Any]:
    response = service.client.post("/v1/jobs", json={"prompt": "a red sphere", "width": 64, "height": 64, **body})
    assert response.status_code == 202, response.text
    told: dict[str, Any] = response.json()
    assert response.headers["location"].endswith(f"/v1/jobs/{told['id']}")
    return told


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_jobs_life(service: Service) -> None:
    told = create(service, model="flux-2-max", seed=3)
    assert (told["state"], told["queue_position"], told["cost"], told["model"]) == ("queued", 0, 7.0, "flux-2-max")
    service.work()
    url = f"/v1/jobs/{told['id']}"
    ready = service.client.get(url).json()
    assert (ready["state"], ready["seed"], ready["result"]["model"]) == ("ready", 3, "fake")
    assert "blob" not in ready["result"]
    assert service.client.get(ready["result"]["url"], headers={"x-key": ""}).status_code == 200
    assert service.client.get(f"{url}/picture").content == service.client.get(ready["result"]["url"]).content
    assert [job["id"] for job in service.client.get("/v1/jobs").json()["jobs"]] == [told["id"]]
    assert service.client.get("/v1/jobs?state=queued").json() == {"jobs": []}
    link = ready["result"]["url"]
    assert service.parts.storage.size_bytes() > 0
    assert service.client.delete(url).status_code == 204
    assert service.client.get(url).status_code == 404
    assert service.client.get(link).status_code == 404
    assert service.parts.storage.size_bytes() == 0


def test_an_unknown_model_is_named(service: Service) -> None:
    response = service.client.post("/v1/jobs", json={"prompt": "a", "model": "dall-e"})
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["body", "model"])


def test_events_of_a_running_job(running: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step waits here until who follows the job was told of the one before."""
    looked_at: list[float] = []

    def view(parts: Parts, job: Job, base_url: str) -> native.JobView:
        looked_at.append(job.progress)
        return viewed(parts, job, base_url)

    def hold(step: int) -> None:
        progress = running.parts.store.recent(running.key_id)[0].progress
        running.until(lambda: progress in looked_at)

    viewed = native.view
    monkeypatch.setattr(native, "view", view)
    running.worker._limits = replace(running.worker._limits, look_s=0.0)
    running.drawer.hold = hold
    told = create(running, prompt="held")
    with running.client.stream("GET", f"/v1/jobs/{told['id']}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found = events("".join(response.iter_text()))
    assert [name for name, _ in found[:-1]] == ["progress"] * (len(found) - 1)
    assert found[-1][0] == "end"
    progress = [data["progress"] for _, data in found]
    assert progress == sorted(progress)
    # before the first three steps, after the third, and the end
    assert len(set(progress)) >= 5
    assert (found[-1][1]["state"], found[-1][1]["result"]["seed"]) == ("ready", told["seed"])


def test_cancelling_a_running_job(running: Service) -> None:
    cancelled = threading.Event()

    def hold(step: int) -> None:
        if step == 3:
            running.until(cancelled.is_set)

    running.drawer.hold = hold
    told = create(running, prompt="held", steps=50)
    url = f"/v1/jobs/{told['id']}"

    def cancel() -> None:
        running.until(lambda: running.parts.changes._followers > 0)
        running.client.post(f"{url}/cancel")
        cancelled.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with running.client.stream("GET", f"{url}/events") as response:
        found = events("".join(response.iter_text()))
    thread.join()
    assert (found[-1][0], found[-1][1]["state"], found[-1][1]["cost"]) == ("end", "cancelled", 0.0)
    assert running.poll(told["id"])["status"] == "Error"
    assert running.drawer.closed_after == [3]


def test_cancelling_a_waiting_job(service: Service) -> None:
    told = create(service)
    assert service.client.post(f"/v1/jobs/{told['id']}/cancel").json()["state"] == "cancelled"
    service.work()
    assert service.drawer.requests == []
    assert service.poll(told["id"])["details"]["code"] == "cancelled"


def test_the_jobs_of_others_are_not_there(service: Service) -> None:
    told = create(service)
    service.work()
    other = {"x-key": service.parts.keys.create("other").text}
    url = f"/v1/jobs/{told['id']}"
    for method, path in (
        ("GET", url), ("DELETE", url), ("POST", f"{url}/cancel"), ("GET", f"{url}/picture"), ("GET", f"{url}/events"),
    ):  # fmt: skip
        assert service.client.request(method, path, headers=other).status_code == 404
    assert service.client.get("/v1/jobs", headers=other).json() == {"jobs": []}
    assert service.client.get(url).json()["state"] == "ready"


def test_every_route_says_who_may_use_it(service: Service) -> None:
    open_routes, seen = set(), set()
    paths = service.client.get("/openapi.json").json()["paths"]
    for route in walk(service.app.routes):
        path = str(route.path)
        if path not in paths:
            # no part of the API's document: the studio's files, open to all, and routes that are not served here
            if path != "/openapi.json" and access_of(route.endpoint) != "open":
                assert access_of(route.endpoint) == "generate", path
                for method in route.methods:
                    refused = service.client.request(method, path.format(name="pro"), headers={"x-key": ""})
                    assert refused.json()["detail"] in ("Not authenticated", "Invalid API key format"), path
            continue
        seen.add(path)
        access = access_of(route.endpoint)
        assert access is not None, path
        if access == "open":
            open_routes.add(path)
            continue
        for method in paths[path]:
            response = service.client.request(method.upper(), re.sub(r"\{\w+\}", "1", path), headers={"x-key": ""})
            assert response.status_code in (401, 403, 422), path
            told = response.json()
            words = told["error"]["message"] if "error" in told else told["detail"]
            assert words in ("Not authenticated", "Invalid API key format"), path
    assert seen == set(paths)
    assert open_routes == {"/livez", "/readyz", "/v1/get_result", "/v1/results/{job_id}"}
    keyless = {path for path in paths if any(not each["security"] for each in paths[path].values())}
    assert keyless == open_routes


def walk(routes: Any) -> list[Any]:  # noqa: ANN401 - starlette's routes, however deep
    found = []
    for route in routes:
        inner = getattr(getattr(route, "original_router", route), "routes", None)
        found += walk(inner) if inner else [route]
    return found


def test_a_key_without_the_scope_is_turned_away(build: Build) -> None:
    service = build()
    metrics_only = {"x-key": service.parts.keys.create("m", ["metrics"]).text}
    generate_only = {"x-key": service.parts.keys.create("g", ["generate"]).text}
    assert service.client.get("/v1/jobs", headers=metrics_only).status_code == 403
    assert service.client.get("/metrics", headers=generate_only).json()["code"] == "not_permitted"
    assert service.client.get("/metrics", headers=metrics_only).status_code == 200


def test_previews_come_with_the_events(in_step: Service) -> None:
    told = create(in_step, prompt="held", previews=True)
    with in_step.client.stream("GET", f"/v1/jobs/{told['id']}/events") as response:
        found = events("".join(response.iter_text()))
    shown = [data for name, data in found if name == "preview"]
    # between the last step and the end there may be no look
    assert [each["step"] for each in shown][:3] == [1, 2, 3]
    assert {(each["total"], each["width"], each["height"]) for each in shown} == {(4, 8, 8)}
    head, _, data = shown[0]["image"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")
    # it was a picture in the making, and there is none any more
    assert in_step.parts.previews.get(told["id"]) is None


def test_no_previews_unless_they_are_asked_for(running: Service) -> None:
    told = create(running, prompt="slow 0.05")
    with running.client.stream("GET", f"/v1/jobs/{told['id']}/events") as response:
        assert "preview" not in {name for name, _ in events("".join(response.iter_text()))}


def test_several_pictures_are_several_jobs(service: Service) -> None:
    told = create(service, num=3, seed=2**64 - 1)
    assert len(told["batch"]) == 3
    assert told["batch"][0] == told["id"]
    service.work()
    jobs = [service.client.get(f"/v1/jobs/{each}").json() for each in told["batch"]]
    assert [job["seed"] for job in jobs] == [2**64 - 1, 0, 1]
    assert {tuple(job["batch"]) for job in jobs} == {tuple(told["batch"])}


def test_several_pictures_or_none(build: Build) -> None:
    service = build(keys__active_limit=2)
    response = service.client.post("/v1/jobs", json={"prompt": "a", "num": 3})
    assert response.status_code == 429
    assert service.parts.store.recent(service.key_id) == []


def test_the_same_token_gives_the_same_batch(service: Service) -> None:
    body = {"prompt": "a", "num": 2}
    first, again = (
        service.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "x"}).json()["batch"] for _ in range(2)
    )
    assert first == again
    assert len(service.parts.store.recent(service.key_id)) == 2
