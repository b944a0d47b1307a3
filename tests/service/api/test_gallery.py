import asyncio
import io
from typing import Any

import pytest
from PIL import Image

from licht.core.sizes import Size
from licht.service.api import background
from tests.service.api.conftest import Service
from tests.service.api.pictures import encoded
from tests.service.api.test_native import create


def gallery(service: Service, query: str = "") -> list[dict[str, Any]]:
    response = service.client.get(f"/v1/gallery{query}")
    assert response.status_code == 200, response.text
    pictures: list[dict[str, Any]] = response.json()["pictures"]
    return pictures


def test_a_picture_is_found_marked_and_deleted(service: Service) -> None:
    cube = create(service, prompt='a Blue cube, 50% "glass"')["id"]
    ball = create(service, prompt="a red ball", model="flux-2-max")["id"]
    create(service, prompt="refuse-picture")
    service.work()
    assert [each["id"] for each in gallery(service)] == [ball, cube]
    assert [each["id"] for each in gallery(service, "?search=bLUE")] == [cube]
    assert [each["id"] for each in gallery(service, "?search=50%25 %22glass%22")] == [cube]
    assert gallery(service, "?search=50_") == []
    assert [each["id"] for each in gallery(service, "?model=flux-2-max")] == [ball]
    assert gallery(service, "?favourite=true") == []
    assert service.client.put(f"/v1/gallery/{cube}/favourite").json()["favourite"] is True
    assert service.client.put(f"/v1/gallery/{cube}/favourite").json()["favourite"] is True
    assert [each["id"] for each in gallery(service, "?favourite=true")] == [cube]
    assert [each["id"] for each in gallery(service, "?favourite=false")] == [ball]
    assert service.client.delete(f"/v1/gallery/{cube}/favourite").json()["favourite"] is False
    service.client.put(f"/v1/gallery/{cube}/favourite")
    assert service.client.delete(f"/v1/gallery/{cube}").status_code == 204
    assert service.client.get(f"/v1/gallery/{cube}").status_code == 404
    assert [each["id"] for each in gallery(service)] == [ball]


def test_pages_follow_each_other(service: Service) -> None:
    ids = [create(service)["id"] for _ in range(5)]
    service.work()
    found, query = [], "?limit=2"
    while True:
        told = service.client.get(f"/v1/gallery{query}").json()
        found += [each["id"] for each in told["pictures"]]
        if told["next"] is None:
            break
        query = f"?limit=2&before={told['next']}"
    assert found == ids[::-1]


@pytest.mark.parametrize("before", ["nonsense", "AAAA", "%F0%9F%98%80", ""])
def test_a_place_that_is_none(service: Service, before: str) -> None:
    response = service.client.get(f"/v1/gallery?before={before}")
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["body", "before"])


def test_the_recipe_draws_the_same_picture_again(service: Service) -> None:
    told = create(
        service,
        prompt="@image1 in the style of @image2",
        input_image=encoded((1, 2, 3)),
        references=[{"image": encoded((4, 5, 6)), "role": "style", "strength": 2.5}],
        seed=2**64 - 1,
        steps=3,
        finish="film",
        width=80,
    )
    service.work()
    recipe = service.client.get(f"/v1/gallery/{told['id']}").json()["recipe"]
    first = service.drawer.requests[-1]
    again = service.client.post("/v1/jobs", json=recipe).json()
    service.work()
    assert service.drawer.requests[-1] == first
    assert service.drawer.finishes[-2:] == ["film", "film"]
    assert service.client.get(f"/v1/gallery/{again['id']}").json()["recipe"] == recipe
    # what the recipe names is this key's alone
    other = {"x-key": service.parts.keys.create("other").text}
    stolen = service.client.post("/v1/jobs", json=recipe, headers=other)
    assert (stolen.status_code, stolen.json()["detail"][0]["loc"]) == (422, ["body", "references", "0", "image"])


def test_the_recipe_of_a_masked_and_extended_picture(service: Service) -> None:
    told = create(
        service, width=0, height=0, steps=2, start=encoded(size=(70, 90)), mask=encoded((255, 255, 255), (70, 90)),
        extend={"left": 10, "bottom": 5},
    )  # fmt: skip
    assert (told["width"], told["height"]) == (80, 95)
    service.work()
    first = service.drawer.requests[-1]
    assert first.start is not None
    assert first.mask is not None
    assert (first.start.strength, first.size, set(first.mask.gray)) == (1.0, None, {255})
    recipe = service.client.get(f"/v1/gallery/{told['id']}").json()["recipe"]
    assert service.client.post("/v1/jobs", json=recipe).status_code == 202
    service.work()
    assert service.drawer.requests[-1] == first


def test_a_reference_is_kept_once_and_used_by_its_id(service: Service) -> None:
    first = service.client.post("/v1/references", json={"image": encoded((9, 8, 7), (100, 70)), "name": "anna"})
    again = service.client.post("/v1/references", json={"image": encoded((9, 8, 7), (100, 70)), "name": "other"})
    assert (first.status_code, again.status_code) == (201, 200)
    kept = first.json()
    assert again.json() == kept
    assert (kept["name"], kept["width"], kept["height"]) == ("anna", 100, 70)
    assert service.client.get("/v1/references").json() == {"references": [kept]}
    url = f"/v1/references/{kept['id']}"
    assert service.client.get(url).json() == kept
    shown = service.client.get(f"{url}/picture")
    with Image.open(io.BytesIO(shown.content)) as image:
        assert (image.format, image.size, image.getpixel((0, 0))) == ("PNG", (100, 70), (9, 8, 7))
    create(service, input_image=f"reference:{kept['id']}", width=0, height=0)
    service.work()
    assert service.drawer.requests[-1].references[0].picture.size == Size(100, 70)
    other = {"x-key": service.parts.keys.create("other").text}
    for method, path in (("GET", url), ("GET", f"{url}/picture"), ("DELETE", url)):
        assert service.client.request(method, path, headers=other).status_code == 404
    assert service.client.delete(url).status_code == 204
    assert service.client.get(url).status_code == 404


def test_the_file_of_a_reference_goes_with_the_last_that_needs_it(service: Service) -> None:
    kept = service.client.post("/v1/references", json={"image": encoded()}).json()["id"]
    job = create(service, input_image=f"reference:{kept}")["id"]
    service.work()
    service.client.delete(f"/v1/jobs/{job}")
    assert service.parts.storage.has(kept)
    assert service.client.delete(f"/v1/references/{kept}").status_code == 204
    assert not service.parts.storage.has(kept)


def test_a_deleted_reference_is_refused_at_once_and_goes_with_the_job_in_hand(service: Service) -> None:
    image = encoded((3, 2, 1), (80, 64))
    kept = service.client.post("/v1/references", json={"image": image}).json()["id"]
    ended = create(service, input_image=f"reference:{kept}")["id"]
    service.work()
    waiting = create(service, input_image=f"reference:{kept}")["id"]
    assert service.client.delete(f"/v1/references/{kept}").status_code == 204

    def refused() -> bool:
        bodies: list[dict[str, Any]] = [{"prompt": "a", "input_image": f"reference:{kept}"}]
        bodies.append(service.client.get(f"/v1/gallery/{ended}").json()["recipe"])
        statuses = [service.client.post("/v1/jobs", json=body).status_code for body in bodies]
        return statuses == [422, 422]

    assert refused()
    asyncio.run(background.reap(service.parts))
    # the job that was accepted before still draws with it
    assert service.parts.storage.has(kept)
    service.work()
    assert service.client.get(f"/v1/jobs/{waiting}").json()["state"] == "ready"
    asyncio.run(background.reap(service.parts))
    assert not service.parts.storage.has(kept)
    assert refused()
    # sent again it is a picture like any other
    assert service.client.post("/v1/references", json={"image": image}).json()["id"] == kept
    create(service, input_image=f"reference:{kept}")


def test_a_finished_picture_is_an_input(service: Service) -> None:
    job = create(service, output_format="png", seed=7)["id"]
    service.work()
    create(service, prompt="make it blue", input_image=f"job:{job}")
    service.work()
    assert service.drawer.requests[-1].references[0].picture.rgb[:3] == bytes((7, 1, 2))
    waiting = create(service)["id"]
    for value in (f"job:{waiting}", "job:nothing", f"reference:{'0' * 64}", "reference:x"):
        response = service.client.post("/v1/jobs", json={"prompt": "a", "input_image": value})
        assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["body", "input_image"])
