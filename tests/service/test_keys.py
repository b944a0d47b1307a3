import pytest
from sqlalchemy import select

from licht.core.errors import InvalidRequest, NotAuthenticated
from licht.service.database.connect import Database
from licht.service.database.tables import KEYS
from licht.service.keys import KeyStore, Scope, is_well_formed
from tests.service.conftest import Clock


def test_a_key_opens_and_only_its_hash_is_kept(keys: KeyStore, database: Database) -> None:
    created = keys.create("my key", [Scope.METRICS, Scope.GENERATE], credits_milli=5, active_limit=2, priority=1)
    assert created.text.startswith(created.key.prefix + "_")
    assert keys.authenticate(created.text) == created.key == keys.find(created.key.prefix)
    assert created.key.scopes == ("generate", "metrics")
    with database.read() as connection:
        row = connection.execute(select(KEYS)).one()
    secret = created.text.rpartition("_")[2]
    assert not any(secret in str(value) for value in row)
    assert len(row.hash) == 64


def test_keys_differ(keys: KeyStore) -> None:
    texts = {keys.create("k").text for _ in range(20)}
    assert len(texts) == 20
    assert all(len(text) == len("licht_") + 10 + 1 + 43 + 6 for text in texts)


def test_the_checksum_finds_typing_errors(keys: KeyStore) -> None:
    text = keys.create("k").text
    assert is_well_formed(text)
    for at in range(len(text)):
        assert not is_well_formed(text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :])
    for wrong in ("", text[:-1], text + "0", text.upper(), " " + text, text + "\n"):
        assert not is_well_formed(wrong)


def test_what_does_not_open(keys: KeyStore, clock: Clock) -> None:
    first, second = keys.create("a"), keys.create("b", expires_at=clock.now + 10)
    mixed = first.key.prefix + second.text.removeprefix(second.key.prefix)
    for text in ("", "nonsense", mixed, first.key.prefix):
        with pytest.raises(NotAuthenticated):
            keys.authenticate(text)
    keys.authenticate(second.text)
    clock.now += 10
    with pytest.raises(NotAuthenticated):
        keys.authenticate(second.text)
    revoked = keys.revoke(first.key.id)
    clock.now += 1
    assert keys.revoke(first.key.id) == revoked
    with pytest.raises(NotAuthenticated):
        keys.authenticate(first.text)


def test_rotation_takes_rights_and_credits_along(keys: KeyStore, clock: Clock) -> None:
    old = keys.create("a", [Scope.METRICS], credits_milli=700, active_limit=3, priority=2)
    new = keys.rotate(old.key.id, overlap_s=60)
    assert (new.key.scopes, new.key.credits_milli, new.key.active_limit, new.key.priority) == (("metrics",), 700, 3, 2)
    assert keys.authenticate(old.text).credits_milli == 0
    assert keys.get(old.key.id).rotated_to == new.key.id
    clock.now += 61
    keys.authenticate(new.text)
    with pytest.raises(NotAuthenticated):
        keys.authenticate(old.text)
    keys.revoke(new.key.id)
    with pytest.raises(InvalidRequest, match="is revoked"):
        keys.rotate(new.key.id)


def test_mistakes(keys: KeyStore) -> None:
    for arguments in (("a", ["everything"]), ("a", []), ("", ["generate"]), ("a\nb", ["generate"])):
        with pytest.raises(InvalidRequest):
            keys.create(*arguments)
    with pytest.raises(InvalidRequest, match="credits is -1"):
        keys.create("a", credits_milli=-1)
    for call in (keys.get, keys.revoke, keys.rotate, keys.find):
        with pytest.raises(InvalidRequest, match="there is no key"):
            call("nobody")


def test_credits_can_be_added(keys: KeyStore) -> None:
    key = keys.create("a").key.id
    assert keys.add_credits(key, 1500).credits_milli == 1500
    assert keys.add_credits(key, -500).credits_milli == 1000
    assert [each.id for each in keys.list()] == [key]
