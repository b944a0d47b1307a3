import json
from pathlib import Path

import pytest

from licht.core.errors import InvalidSettings
from licht.service.settings import MASK, Server, built_in_tiers, load_settings


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "licht.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_then_the_environment_then_the_options(tmp_path: Path) -> None:
    file = written(tmp_path, f"data = '{tmp_path}'\n[server]\nport = 1\nhost = 'a'\n[queue]\nmax_attempts = 7\n")
    environment = {
        "LICHT_SERVICE__SERVER__PORT": "2",
        "LICHT_SERVICE__SERVER__HOST": "b",
        "LICHT_SERVICE__FETCH__ALLOW_NETWORKS": "10.0.0.0/8, 192.168.0.0/16",
        "LICHT_MODELS": "not ours",
    }
    settings = load_settings(file, {"server.port": 3}, environment)
    assert (settings.server.port, settings.server.host, settings.queue.max_attempts) == (3, "b", 7)
    assert settings.fetch.allow_networks == ("10.0.0.0/8", "192.168.0.0/16")
    assert settings.database_url == f"sqlite:///{tmp_path / 'licht.sqlite3'}"
    assert settings.storage_url == f"file://{tmp_path / 'blobs'}"


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("[server]\nprot = 1", "server.prot", "is unknown"),
        ("[sever]\nport = 1", "sever", "is unknown"),
        ("[server]\nport = 70000", "server.port", "less than or equal to 65535"),
        ("[server]\nport = 'x'", "server.port", "integer"),
        ("[server]\npublic_url = 'https://x/path'", "server.public_url", "pattern"),
        ("[queue]\nlease_s = nan", "queue.lease_s", "finite number"),
        ("[queue]\nlease_s = 5", "queue.heartbeat_s", "at most half"),
        ("[fetch]\nallow_networks = ['10.0.0.1/8']", "fetch.allow_networks.0", "host bits"),
        ("[tiers.mine]\nsteps = 3", "tiers.mine.first_mp", "required"),
        ("[tiers.flux-2-pro]\nprice = 3", "tiers.flux-2-pro.price", "is unknown"),
        ("[worker]\nengine = 'no colon'", "worker.engine", "pattern"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, field: str, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message) as caught:
        load_settings(written(tmp_path, text), {}, {})
    assert caught.value.field == field


def test_mistakes_in_the_environment_are_named() -> None:
    for name in ("LICHT_SERVICE__SERVER__PROT", "LICHT_SERVICE__NOTHING", "LICHT_SERVICE__DATA__X__Y"):
        with pytest.raises(InvalidSettings):
            load_settings(None, {"data": "d"}, {name: "1"})


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load_settings(tmp_path / "nothing.toml", {}, {})
    with pytest.raises(InvalidSettings, match="not valid TOML"):
        load_settings(written(tmp_path, "["), {}, {})


def test_tiers_can_be_changed_and_added(tmp_path: Path) -> None:
    text = "[tiers.flux-2-flex]\nsteps = 20\n[tiers.house]\nfirst_mp = 1\nfurther_mp = 0.5\nguidance = 2\n"
    tiers = load_settings(written(tmp_path, text), {}, {}).effective_tiers()
    assert tiers["flux-2-flex"] == built_in_tiers()["flux-2-flex"].model_copy(update={"steps": 20})
    assert (tiers["house"].first_mp, tiers["house"].guidance, tiers["house"].width) == (1, 2, 1024)
    assert tiers["flux-2-pro"] == built_in_tiers()["flux-2-pro"]


def test_secrets_are_masked(tmp_path: Path) -> None:
    text = "[database]\nurl = 'postgresql://u:hush@h/d'\n[links]\nsecret = 'hush'\n"
    settings = load_settings(written(tmp_path, text), {}, {})
    shown = json.dumps(settings.masked())
    assert "hush" not in shown + repr(settings) + str(settings)
    assert shown.count(MASK) == 2
    assert settings.database_url == "postgresql://u:hush@h/d"


@pytest.mark.parametrize("field", ["upsampling.url", "storage.url", "storage.endpoint_url", "telemetry.endpoint"])
def test_passwords_in_addresses_are_masked(field: str) -> None:
    settings = load_settings(None, {"data": "d", field: "https://me:hush@host/path?x=a@b"}, {})
    section, name = field.split(".")
    assert settings.masked()[section][name] == f"https://{MASK}@host/path?x=a@b"


def test_what_is_off_is_said_aloud() -> None:
    told = {"server.public_url": "https://x", "telemetry.endpoint": "http://x/v1/traces"}
    told |= {"upsampling.url": "http://x/v1", "worker.ranker": "a:b"}
    quiet = load_settings(None, {"data": "d", **told}, {})
    assert quiet.switched_off() == []
    off: dict[str, object] = {"worker.ranker": "none"}
    off |= {"worker.policy": "off", "fetch.enabled": False, "server.allowed_hosts": ["*"], "worker.count": 0}
    assert len(load_settings(None, {"data": "d", **off}, {}).switched_off()) == 8


def test_one_language_model_writes_prompts_out() -> None:
    assert not load_settings(None, {"data": "d"}, {}).upsampling.configured
    for named in ({"upsampling.url": "http://x/v1"}, {"upsampling.local": "own"}):
        assert load_settings(None, {"data": "d", **named}, {}).upsampling.configured
    with pytest.raises(InvalidSettings, match="both set"):
        load_settings(None, {"data": "d", "upsampling.url": "http://x/v1", "upsampling.local": "own"}, {})


def test_everything_ends_within_the_limit() -> None:
    """Pictures go back first, then calls are told, then processes are ended; less than two seconds are two."""
    for drain_s, limit_s in ((30.0, 30.0), (2.0, 2.0), (0.0, 2.0), (5.0, 5.0)):
        drain = Server(drain_s=drain_s).drain
        assert 0 < drain.pictures_s < drain.calls_s < drain.processes_s < limit_s
    assert (Server(drain_s=5.0).drain.pictures_s, Server().drain.pictures_s) == (2.5, 27.0)
