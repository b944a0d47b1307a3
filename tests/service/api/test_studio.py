"""The page's files, the arena and the routes for administrators."""

import pytest

from licht.service.api.studio import FOLDER, MEDIA_TYPES, POLICY, read_files
from licht.service.database.tables import BATTLES
from licht.service.keys import Scope
from tests.service.api.conftest import Service

REQUEST = {"prompt": "a red sphere", "width": 64, "height": 64}


def test_the_page_comes_without_a_key_and_under_a_strict_policy(service: Service) -> None:
    answer = service.client.get("/", headers={"x-key": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy == POLICY
    assert "unsafe" not in policy
    again = service.client.get("/", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_every_file_is_served_and_nothing_else(service: Service) -> None:
    for path, file in read_files().items():
        answer = service.client.get(f"/studio/{path}")
        assert (answer.status_code, answer.content) == (200, file.data)
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("nothing.js", "../service/keys.py", "%2e%2e/__init__.py", "vendor", ""):
        assert service.client.get(f"/studio/{path}").status_code == 404
    assert {path.suffix for path in FOLDER.rglob("*") if path.is_file()} <= {*MEDIA_TYPES, ".md", ".txt"}


def test_the_page_is_small() -> None:
    assert sum(len(file.data) for file in read_files().values()) < 300_000


def test_no_inline_script_and_no_address_elsewhere() -> None:
    page = read_files()["index.html"].data.decode()
    assert "<script>" not in page
    assert "style=" not in page
    assert "on" not in {name.split("=")[0][:2] for name in page.split() if name.startswith("on")}
    for path, file in read_files().items():
        if path.endswith((".js", ".css", ".html")) and not path.startswith("vendor/"):
            for scheme in (b"http:", b"https:", b"//cdn", b"innerHTML", b"eval("):
                assert scheme not in file.data.replace(b"http://www.w3.org/", b""), f"{path} holds {scheme!r}"


def test_about(service: Service) -> None:
    told = service.client.get("/v1/about").json()
    # before a worker is there: what will draw, so that a page can say what it knows
    assert (told["weights"], told["ready"], told["native"]) == ("nano", False, None)
    assert told["tiers"]["flux-2-pro"]["first_mp"] == 3
    assert told["key"]["scopes"] == ["generate", "metrics"]
    assert told["key"]["credits"] is None
    service.parts.register.enter("w", "nano", "Apache-2.0")
    service.parts.register.ready("w")
    later = service.client.get("/v1/about").json()
    assert (later["weights"], later["ready"]) == ("nano", True)


def battle(service: Service, first: dict[str, object], second: dict[str, object]) -> dict[str, object]:
    body = {"request": REQUEST, "contestants": [first, second]}
    answer = service.client.post("/v1/arena/battles", json=body)
    assert answer.status_code == 202, answer.text
    told: dict[str, object] = answer.json()
    return told


def test_a_battle_hides_who_is_who_until_the_vote(service: Service) -> None:
    told = battle(service, {"model": "flux-2-flex", "steps": 2}, {"model": "flux-2-flex", "steps": 6})
    route = f"/v1/arena/battles/{told['id']}"
    early = service.client.post(f"{route}/vote", json={"winner": "a"})
    assert (early.status_code, "ready before the vote" in early.json()["message"]) == (422, True)
    service.work()
    ready = service.client.get(route).json()
    assert [ready[side]["state"] for side in "ab"] == ["ready", "ready"]
    assert [ready[side]["name"] for side in "ab"] == [None, None]
    assert [ready[side]["job"] for side in "ab"] == [None, None]
    assert service.client.get(ready["a"]["url"], headers={"x-key": ""}).status_code == 200
    seeds = {request.seeds for request in service.drawer.requests}
    assert len(seeds) == 1
    voted = service.client.post(f"{route}/vote", json={"winner": "a"}).json()
    assert voted["winner"] == "a"
    assert {voted[side]["name"] for side in "ab"} == {"flux-2-flex, 2 steps", "flux-2-flex, 6 steps"}
    again = service.client.post(f"{route}/vote", json={"winner": "b"})
    assert (again.status_code, service.client.get(route).json()["winner"]) == (422, "a")


def test_votes_make_a_table(service: Service) -> None:
    for _ in range(4):
        told = battle(service, {"model": "flux-2-pro"}, {"model": "flux-2-klein-4b"})
        service.work()
        drawn = told["id"]
        # vote for whoever is flux-2-pro: the order is by lot, and the row knows it
        route = f"/v1/arena/battles/{drawn}"
        with service.parts.database.read() as connection:
            row = connection.execute(BATTLES.select().where(BATTLES.c.id == drawn)).one()
        winner = "a" if row.name_a == "flux-2-pro" else "b"
        assert service.client.post(f"{route}/vote", json={"winner": winner}).status_code == 200
    table = service.client.get("/v1/arena").json()
    first, second = table["standings"]
    assert (table["votes"], first["name"], first["wins"], second["losses"]) == (4, "flux-2-pro", 4, 4)
    assert first["rating"] > 1500 > second["rating"]
    assert first["win_rate_interval"]["low"] > 0.5 > second["win_rate_interval"]["high"]


@pytest.mark.parametrize(
    ("contestants", "field"),
    [
        ([{"model": "flux-2-pro"}, {"model": "nothing"}], "contestants.1.model"),
        ([{"model": "flux-2-pro"}, {"model": "flux-2-pro"}], "contestants"),
        ([{"model": "flux-2-pro"}], "contestants"),
        ([{"model": "flux-2-pro", "steps": 51}, {"model": "flux-2-max"}], "steps"),
    ],
)
def test_bad_battles(service: Service, contestants: list[dict[str, object]], field: str) -> None:
    answer = service.client.post("/v1/arena/battles", json={"request": REQUEST, "contestants": contestants})
    assert answer.status_code == 422
    assert field in ".".join(str(part) for part in answer.json()["detail"][0]["loc"])


def test_a_battle_belongs_to_its_key(service: Service) -> None:
    told = battle(service, {"model": "flux-2-pro"}, {"model": "flux-2-max"})
    other = service.parts.keys.create("other").text
    for answer in (
        service.client.get(f"/v1/arena/battles/{told['id']}", headers={"x-key": other}),
        service.client.post(f"/v1/arena/battles/{told['id']}/vote", json={"winner": "a"}, headers={"x-key": other}),
    ):
        assert answer.status_code == 404


ADMIN_ROUTES = ("keys", "usage", "queue", "moderation")


def test_administrators_only(service: Service) -> None:
    for name in ADMIN_ROUTES:
        answer = service.client.get(f"/v1/admin/{name}")
        assert (answer.status_code, answer.json()["message"]) == (403, "this key lacks the scope admin")


@pytest.fixture
def admin(service: Service) -> Service:
    service.client.headers["x-key"] = service.parts.keys.create("boss", tuple(Scope)).text
    return service


def test_keys_are_made_limited_and_revoked(admin: Service) -> None:
    made = admin.client.post("/v1/admin/keys", json={"name": "studio", "credits": 2.5, "active_limit": 3})
    assert made.status_code == 201
    key, text = made.json()["key"], made.json()["text"]
    assert (key["credits"], key["active_limit"], key["scopes"]) == (2.5, 3, ["generate"])
    route = f"/v1/admin/keys/{key['id']}"
    changed = admin.client.patch(f"{route}/limits", json={"add_credits": 10, "active_limit": None}).json()
    assert (changed["credits"], changed["active_limit"]) == (12.5, None)
    assert admin.client.get("/v1/about", headers={"x-key": text}).json()["key"]["credits"] == 12.5
    assert admin.client.post(f"{route}/revoke").json()["revoked_at"] is not None
    assert admin.client.get("/v1/about", headers={"x-key": text}).status_code == 403
    listed = admin.client.get("/v1/admin/keys").json()["keys"]
    assert {row["name"] for row in listed} == {"tests", "boss", "studio"}
    assert text not in admin.client.get("/v1/admin/keys").text
    bad = admin.client.post("/v1/admin/keys", json={"name": "x", "scopes": ["all"]})
    assert (bad.status_code, "use generate, metrics, admin" in bad.json()["message"]) == (422, True)


def test_usage_queue_and_refusals(admin: Service) -> None:
    admin.submit(width=1024, height=1024)
    admin.submit(prompt="refuse-request")
    admin.work()
    admin.submit()
    day = admin.client.get("/v1/admin/usage").json()["usage"][0]
    assert (day["key_name"], day["pictures"], day["moderated"], day["credits"]) == ("boss", 1, 1, 3.0)
    assert admin.client.get("/v1/admin/usage?since=2999-01-01").json() == {"usage": []}
    assert admin.client.get("/v1/admin/usage?since=yesterday").status_code == 422
    queue = admin.client.get("/v1/admin/queue").json()
    assert (queue["jobs"]["queued"], queue["jobs"]["moderated"]) == (1, 1)
    refusal = admin.client.get("/v1/admin/moderation").json()["refusals"][0]
    assert (refusal["key_name"], refusal["code"]) == ("boss", "request_moderated")
    assert "refuse-request" not in admin.client.get("/v1/admin/moderation").text
