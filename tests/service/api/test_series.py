from typing import Any

import pytest

from licht.safety import provenance
from tests.service.api.conftest import Build, Service
from tests.service.api.pictures import encoded

STORY: dict[str, Any] = {
    "title": "A walk",
    "style": "soft watercolour",
    "seed": 7,
    "width": 64,
    "height": 64,
    "characters": {
        "anna": {"images": [encoded((1, 1, 1)), encoded((2, 2, 2))], "description": "a woman in a red coat"},
        "dog": {"images": [encoded((3, 3, 3))], "strength": 2},
    },
    "frames": [
        {"prompt": "@anna leaves the house"},
        {"prompt": "@dog runs to @anna"},
        {"prompt": "an empty road", "seed": 11},
    ],
}


def post(service: Service, **changes: object) -> dict[str, Any]:
    response = service.client.post("/v1/series", json={**STORY, **changes})
    assert response.status_code == 202, response.text
    told: dict[str, Any] = response.json()
    return told


def test_each_frame_is_a_job_with_the_characters_that_it_mentions(service: Service) -> None:
    told = post(service)
    assert (told["title"], told["state"], len(told["frames"])) == ("A walk", "running", 3)
    service.work()
    drawn = service.drawer.requests
    assert [request.prompt for request in drawn] == [
        "a woman in a red coat (image 1, image 2) leaves the house. Style: soft watercolour",
        "dog (image 1) runs to a woman in a red coat (image 2, image 3). Style: soft watercolour",
        "an empty road. Style: soft watercolour",
    ]
    assert [request.seeds[0] for request in drawn] == [7, 7, 11]
    firsts = [[each.picture.rgb[0] for each in request.references] for request in drawn]
    assert firsts == [[1, 2], [3, 1, 2], []]
    assert [each.strength for each in drawn[1].references] == [2, 1, 1]
    ready = service.client.get(f"/v1/series/{told['id']}").json()
    assert (ready["state"], [each["job"]["state"] for each in ready["frames"]]) == ("ready", ["ready"] * 3)
    assert service.client.get("/v1/series").json()["series"][0]["id"] == told["id"]


def test_one_frame_is_drawn_again(service: Service) -> None:
    told = post(service, seeds="count")
    service.work()
    before = service.client.get(f"/v1/series/{told['id']}").json()["frames"]
    assert [frame["job"]["seed"] for frame in before] == [7, 8, 11]
    url = f"/v1/series/{told['id']}/frames/2"
    assert service.client.post(url, json={"seed": 5}).status_code == 202
    service.work()
    after = service.client.get(f"/v1/series/{told['id']}").json()["frames"]
    assert (after[0], after[2]) == (before[0] | {"job": after[0]["job"]}, before[2] | {"job": after[2]["job"]})
    assert [frame["job"]["id"] for frame in after][::2] == [frame["job"]["id"] for frame in before][::2]
    assert (after[1]["job"]["seed"], after[1]["job"]["id"] != before[1]["job"]["id"]) == (5, True)
    assert len(service.drawer.requests[-1].references) == 3
    assert service.client.post(url, json={"prompt": "@dog sleeps"}).json()["frames"][1]["prompt"] == "@dog sleeps"
    service.work()
    assert service.drawer.requests[-1].prompt.startswith("dog (image 1) sleeps")
    assert service.drawer.requests[-1].seeds[0] != 5
    assert service.client.post(f"/v1/series/{told['id']}/frames/4", json={}).status_code == 404
    wrong = service.client.post(url, json={"prompt": "@nobody"})
    assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["body", "frames", "1", "prompt"])


def test_one_more_frame_is_drawn_at_the_end(service: Service) -> None:
    told = post(service, seeds="count", frames=STORY["frames"][:2])
    url = f"/v1/series/{told['id']}"
    longer = service.client.post(f"{url}/frames", json={"prompt": "@anna sleeps"})
    assert (longer.status_code, longer.json()["state"], len(longer.json()["frames"])) == (202, "running", 3)
    service.work()
    assert service.drawer.requests[-1].prompt.startswith("a woman in a red coat (image 1, image 2) sleeps. Style")
    assert [frame["job"]["seed"] for frame in service.client.get(url).json()["frames"]] == [7, 8, 9]
    # it is a frame like the others
    assert service.client.post(f"{url}/frames/3", json={"seed": 5}).status_code == 202
    wrong = service.client.post(f"{url}/frames", json={"prompt": "@nobody"})
    assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["body", "frames", "3", "prompt"])
    assert len(service.client.get(url).json()["frames"]) == 3


def test_the_contact_sheet_is_signed_and_names_its_frames(service: Service) -> None:
    told = post(service)
    url = f"/v1/series/{told['id']}/sheet"
    assert service.client.get(url).status_code == 404
    service.work()
    sheet = service.client.get(url)
    assert (sheet.status_code, sheet.headers["content-type"]) == (200, "image/png")
    found = provenance.read(sheet.content, "PNG", service.parts.policy.tools.anchors())
    assert (found.state, found.ingredients) == ("trusted", 3)


def test_a_series_outlives_its_jobs_and_the_other_way_round(service: Service) -> None:
    told = post(service)
    service.work()
    gone = told["frames"][0]["job"]["id"]
    service.client.delete(f"/v1/jobs/{gone}")
    left = service.client.get(f"/v1/series/{told['id']}").json()
    assert (left["state"], left["frames"][0]["job"]) == ("incomplete", None)
    other = {"x-key": service.parts.keys.create("other").text}
    assert service.client.get(f"/v1/series/{told['id']}", headers=other).status_code == 404
    assert service.client.delete(f"/v1/series/{told['id']}").status_code == 204
    assert service.client.get(f"/v1/series/{told['id']}").status_code == 404
    assert len(service.client.get("/v1/gallery").json()["pictures"]) == 2


def test_all_frames_or_none(build: Build) -> None:
    service = build(keys__active_limit=2)
    response = service.client.post("/v1/series", json=STORY)
    assert response.status_code == 429
    assert service.parts.store.recent(service.key_id) == []
    assert service.client.get("/v1/series").json() == {"series": []}


@pytest.mark.parametrize(
    ("changes", "location"),
    [
        ({"frames": []}, ["frames"]),
        ({"frames": [{"prompt": "@nobody"}]}, ["frames", "0", "prompt"]),
        ({"frames": [{"prompt": ""}]}, ["frames", "0", "prompt"]),
        ({"frames": [{"text": "a"}]}, ["frames", "0", "prompt"]),
        ({"characters": {"image1": {"images": [encoded()]}}}, ["characters", "image1"]),
        ({"characters": {**STORY["characters"], "dog": {"images": 3}}}, ["characters", "dog", "images"]),
        ({"characters": {**STORY["characters"], "dog": {"images": ["!!"]}}}, ["characters", "dog", "images", "0"]),
        ({"seeds": "wild"}, ["seeds"]),
        ({"model": "dall-e"}, ["model"]),
        ({"width": 10}, ["width"]),
    ],
)
def test_bad_stories_name_the_field(service: Service, changes: dict[str, Any], location: list[str]) -> None:
    response = service.client.post("/v1/series", json={**STORY, **changes})
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["body", *location])
    assert service.parts.store.recent(service.key_id) == []
