"""What clients of the hosted API hear about routes that are not served here."""

from typing import Any

import pytest

from tests.service.api.conftest import Build, Service


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/flux-tools/erase-v1", "flux-pro-1.0-fill"),
        ("/v1/flux-tools/outpainting-v1", "flux-pro-1.0-expand"),
        ("/v1/flux-tools/vto-v2", "input_image"),
        ("/v1/flux-3-video", "flux-2-pro"),
        ("/v1/finetune", "licht train"),
    ],
)
def test_a_route_of_theirs_says_what_comes_nearest(service: Service, path: str, said: str) -> None:
    response = service.client.post(path, json={"prompt": "a"})
    told = response.json()
    assert (response.status_code, told["code"], told["detail"]) == (404, "not_served", told["message"])
    assert said in told["message"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/flux-2-klein-4b-finetuned", {"prompt": "a", "finetune_id": "org/name"}),
        ("POST", "/v1/flux-pro-1.1-ultra-finetuned", {"prompt": "a", "finetune_id": "name"}),
        ("POST", "/v1/delete_finetune", {"finetune_id": "name"}),
        ("GET", "/v1/finetune_details?finetune_id=name", None),
    ],
)
def test_there_are_no_adapters(service: Service, method: str, path: str, body: dict[str, Any] | None) -> None:
    response = service.client.request(method, path, json=body)
    assert (response.status_code, response.json()["code"]) == (404, "unknown_finetune")
    assert response.json()["detail"] == "Finetune not found or access denied"


def test_an_adapter_has_a_name(service: Service) -> None:
    response = service.client.post("/v1/flux-2-klein-4b-finetuned", json={"prompt": "a"})
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["body", "finetune_id"])
    assert service.client.get("/v1/my_finetunes").json() == {"finetunes": []}


def test_they_need_a_key_and_are_no_part_of_the_document(service: Service) -> None:
    for path in ("/v1/flux-tools/erase-v1", "/v1/flux-3-video"):
        assert service.client.post(path, json={}, headers={"x-key": "wrong"}).status_code == 422
    document = service.client.get("/openapi.json").json()
    assert not [path for path in document["paths"] if "finetune" in path or "tools" in path]


def test_a_tier_of_the_operator_comes_first(build: Build) -> None:
    service = build(tiers={"flux-3-image": {"first_mp": 1, "further_mp": 0}})
    assert service.submit("flux-3-image")["cost"] == 1.0
