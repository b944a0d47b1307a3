"""`licht serve --check`, `licht keys` and `licht usage`, in this process."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from licht.cli.main import run
from licht.cli.working import check_licence
from licht.core.errors import InvalidSettings
from licht.model.variants import VARIANTS
from licht.service.keys import KeyStore
from licht.service.queue.records import Outcome, State
from licht.service.queue.store import JobStore
from licht.service.settings import load_settings
from tests.service.conftest import NewJobs
from tests.service.fakes import FakeDrawer

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(tmp_path)


def told(capsys: Capture, *arguments: str, code: int = 0) -> Any:  # noqa: ANN401 - a JSON document
    assert run([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_check_shows_everything_but_secrets(capsys: Capture, tmp_path: Path, postgres: str) -> None:
    file = tmp_path / "s.toml"
    url = postgres.replace("postgres:@", "postgres:hush@")
    assert "hush" in url
    file.write_text(f"[database]\nurl = '{url}'\n[worker]\npolicy = 'off'\n", encoding="utf-8")
    shown = told(capsys, "serve", "--check", "--settings", str(file), "--port", "9")
    assert (shown["settings"]["server"]["port"], shown["settings"]["database"]["url"]) == (9, "********")
    assert any("safety policy" in line for line in shown["switched_off"])
    assert run(["serve", "--check", "--settings", str(file)]) == 0
    text = capsys.readouterr().out
    assert "hush" not in text
    assert "off: safety policy" in text


def test_check_refuses_what_would_not_start(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("no database", encoding="utf-8")
    (tmp_path / "file").touch()
    for name, value, words in (
        ("DATABASE__URL", "nonsense", "no SQLAlchemy address"),
        ("DATABASE__URL", "postgresql://h:port/d", "no SQLAlchemy address"),
        ("DATABASE__URL", "mysql://h/d", "use sqlite or postgresql"),
        ("DATABASE__URL", "sqlite://", "in memory"),
        ("DATABASE__URL", f"sqlite:///{tmp_path}/text", "no database that can be read"),
        ("DATABASE__URL", f"sqlite:///{tmp_path}/file/x.sqlite3", "no folder"),
        ("DATABASE__URL", "postgresql://u:hush@127.0.0.1:9/d", "does not let anybody in"),
        ("WORKER__RANKER", "nothing.here:ranker", "worker.ranker nothing.here:ranker cannot be opened"),
        ("WORKER__RANKER", "json:nothing", "worker.ranker json:nothing cannot be opened"),
        ("WORKER__RANKER", "json:__name__", "no function"),
        ("WORKER__ENGINE", "nothing.here:engine", "worker.engine"),
        ("WORKER__MODEL", "klein-4b", "not installed"),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(f"LICHT_SERVICE__{name}", value)
            patched.setenv("LICHT_MODELS", str(tmp_path / "models"))
            shown = told(capsys, "serve", "--check", "--data", str(tmp_path / "data"), code=2)
        assert words in shown["error"]["message"], shown
        assert "hush" not in shown["error"]["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "text"]


def test_check_says_aloud_which_weights_are_not_for_every_use(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(tmp_path / "data")
    shown = told(capsys, "serve", "--check", "--data", data)["weights"]
    assert (shown["name"], shown["non_commercial"]) == ("nano", False)
    found = SimpleNamespace(variant=VARIANTS["dev"])
    monkeypatch.setattr("licht.checkpoint.catalog.find_model", lambda *_: found)
    refused = told(capsys, "serve", "--check", "--data", data, "--model", "dev", code=2)
    assert "accept_non_commercial_licence" in refused["error"]["message"]
    monkeypatch.setenv("LICHT_SERVICE__WORKER__ACCEPT_NON_COMMERCIAL_LICENCE", "true")
    assert run(["serve", "--check", "--data", data, "--model", "dev"]) == 0
    assert "NON-COMMERCIAL" in capsys.readouterr().out


def test_check_makes_nothing(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICHT_TRUST", str(tmp_path / "trust"))
    shown = told(capsys, "serve", "--check", "--data", str(tmp_path / "data"))
    assert any("will make keys" in line for line in shown["switched_off"])
    assert list(tmp_path.iterdir()) == []


def test_keys(capsys: Capture, data: str) -> None:
    created = told(capsys, "keys", "create", "--data", data, "--credits", "2.5", "--scope", "metrics", "--days", "1")
    assert set(created) == {"id", "key", "prefix", "scopes"}
    assert (created["scopes"], created["key"].startswith(created["prefix"])) == (["metrics"], True)
    (listed,) = told(capsys, "keys", "list", "--data", data)
    assert (listed["id"], listed["credits_milli"], listed["revoked_at"]) == (created["id"], 2500, None)
    assert told(capsys, "keys", "credits", created["id"], "1.5", "--data", data)["credits_milli"] == 4000
    rotated = told(capsys, "keys", "rotate", created["prefix"], "--data", data)
    assert rotated["scopes"] == ["metrics"]
    assert told(capsys, "keys", "revoke", rotated["id"], "--data", data)["revoked_at"] > 0
    assert run(["keys", "list", "--data", data]) == 0
    text = capsys.readouterr().out
    assert "revoked" in text
    assert rotated["key"] not in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "list"],
        ["keys", "revoke", "key_1"],
        ["keys", "rotate", "key_1"],
        ["keys", "credits", "key_1", "5"],
        ["usage"],
    ],
)
def test_a_folder_without_a_service_is_no_service(capsys: Capture, tmp_path: Path, arguments: list[str]) -> None:
    shown = told(capsys, *arguments, "--data", str(tmp_path / "typo"), code=2)
    assert "there is no service at" in shown["error"]["message"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "create", "--scope", "all"],
        ["keys", "create", "--days", "-1"],
        ["keys", "create", "--credits", "nan"],
        ["keys", "revoke", "nobody"],
        ["usage", "--since", "yesterday"],
        ["usage", "--key", "nobody"],
        ["serve", "--check", "--port", "99999"],
    ],
)
def test_mistakes(capsys: Capture, data: str, arguments: list[str]) -> None:
    shown = told(capsys, *arguments, "--data", data, code=2)
    assert shown["error"]["message"]


def test_usage(capsys: Capture, tmp_path: Path, store: JobStore, new_job: NewJobs, keys: KeyStore) -> None:
    store.submit(new_job())
    claim = store.leases.claim("w")
    assert claim is not None
    store.leases.finish(claim, Outcome(State.READY, result={}))
    file = tmp_path / "s.toml"
    url = store.database.url.render_as_string(hide_password=False)
    file.write_text(f"data = '{tmp_path}'\n[database]\nurl = '{url}'\n", encoding="utf-8")
    (row,) = told(capsys, "usage", "--settings", str(file))
    assert (row["key_name"], row["pictures"], row["credits"]) == ("tests", 1, 3.0)
    assert run(["usage", "--settings", str(file)]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.startswith("day,key_id,key_name,route,pictures")
    assert line.startswith("2027-01-15,key_")


def test_non_commercial_weights_need_a_word_from_the_operator(data: str) -> None:
    drawer = FakeDrawer()
    drawer.licence = "FLUX Non-Commercial"
    with pytest.raises(InvalidSettings, match="accept_non_commercial_licence = true"):
        check_licence(load_settings(None, {"data": data}, {}), drawer)
    check_licence(load_settings(None, {"data": data, "worker.accept_non_commercial_licence": True}, {}), drawer)
    check_licence(load_settings(None, {"data": data}, {}), FakeDrawer())
