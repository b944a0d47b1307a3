"""API keys: 256 random bits behind a visible prefix, with a checksum; only hashes are stored."""

import hashlib
import hmac
import json
import re
import secrets
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import insert, or_, select, update

from licht.core.errors import InvalidRequest, NotAuthenticated
from licht.service.database.connect import AnyRow, Database
from licht.service.database.tables import KEYS

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH: Final = 10
_SECRET_LENGTH: Final = 43
"""43 characters of 62 hold 256 bits."""
_CHECKSUM_LENGTH: Final = 6
_FORM: Final = re.compile(
    rf"(licht_[0-9A-Za-z]{{{_ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}}[0-9A-Za-z]{{{_CHECKSUM_LENGTH}}}"
)
_LONGEST_NAME: Final = 100


class Scope(StrEnum):
    """What a key is good for."""

    GENERATE = "generate"
    """Submit, follow, cancel and delete its own jobs."""
    METRICS = "metrics"
    """Read the metrics of the whole service."""
    ADMIN = "admin"
    """Look after keys, usage, queue and refusals of the whole service."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. Times in seconds since 1970; `credits_milli` None means no limit."""

    id: str
    prefix: str
    name: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    credits_milli: int | None
    active_limit: int | None
    priority: int
    rotated_to: str | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key, with the text that is shown once and never again."""

    key: Key
    text: str


class KeyStore:
    """The keys of one database."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Work on `database`; `clock` gives seconds since 1970."""
        self._database = database
        self._clock = clock

    def create(
        self,
        name: str,
        scopes: Sequence[str] = (Scope.GENERATE,),
        *,
        credits_milli: int | None = None,
        active_limit: int | None = None,
        priority: int = 0,
        expires_at: float | None = None,
    ) -> CreatedKey:
        """Make a key. Raises `InvalidRequest` for an unknown scope or a limit below zero."""
        chosen = _scopes(scopes)
        if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
            raise InvalidRequest(f"the name of a key has 1 to {_LONGEST_NAME} printable characters", field="name")
        for field, value in (("credits", credits_milli), ("active_limit", active_limit)):
            if value is not None and value < 0:
                raise InvalidRequest(f"{field} is {value}; use 0 or more", field=field)
        text = _new_text()
        values = {
            "id": f"key_{secrets.token_hex(8)}",
            "prefix": _prefix(text),
            "hash": _hash(text),
            "name": name,
            "scopes": json.dumps(chosen),
            "created_at": self._clock(),
            "expires_at": expires_at,
            "credits_milli": credits_milli,
            "active_limit": active_limit,
            "priority": priority,
            "fair_finish": 0.0,
        }
        with self._database.write() as connection:
            row = connection.execute(insert(KEYS).values(values).returning(KEYS)).one()
        return CreatedKey(_key(row), text)

    def list(self) -> list[Key]:
        """All keys, the oldest first."""
        with self._database.read() as connection:
            return [_key(row) for row in connection.execute(select(KEYS).order_by(KEYS.c.created_at))]

    def get(self, key_id: str) -> Key:
        """A key by its id. Raises `InvalidRequest` if there is none."""
        with self._database.read() as connection:
            row = connection.execute(select(KEYS).where(KEYS.c.id == key_id)).one_or_none()
        if row is None:
            raise InvalidRequest(f"there is no key {key_id!r}; `licht keys list` shows them", field="id")
        return _key(row)

    def find(self, id_or_prefix: str) -> Key:
        """A key by its id or visible prefix. Raises `InvalidRequest` if there is none."""
        with self._database.read() as connection:
            row = connection.execute(
                select(KEYS).where(or_(KEYS.c.id == id_or_prefix, KEYS.c.prefix == id_or_prefix))
            ).one_or_none()
        if row is None:
            raise InvalidRequest(f"there is no key {id_or_prefix!r}; `licht keys list` shows them", field="id")
        return _key(row)

    def authenticate(self, text: str) -> Key:
        """The key whose secret this is. Raises `NotAuthenticated` for one that is unknown, expired or revoked."""
        prefix = _prefix(text) if is_well_formed(text) else ""
        with self._database.read() as connection:
            row = connection.execute(select(KEYS).where(KEYS.c.prefix == prefix)).one_or_none()
        # compared also where there is nothing to compare with, so that both answers take the same time
        known = hmac.compare_digest(row.hash if row is not None else _hash(""), _hash(text))
        now = self._clock()
        if row is None or not known or row.revoked_at is not None or (row.expires_at or now + 1) <= now:
            raise NotAuthenticated("Not authenticated")
        return _key(row)

    def revoke(self, key_id: str) -> Key:
        """End a key at once; revoking twice changes nothing. Raises `InvalidRequest` if there is none."""
        self.get(key_id)
        with self._database.write() as connection:
            connection.execute(
                update(KEYS).where(KEYS.c.id == key_id, KEYS.c.revoked_at.is_(None)).values(revoked_at=self._clock())
            )
        return self.get(key_id)

    def rotate(self, key_id: str, overlap_s: float = 0.0) -> CreatedKey:
        """Replace a key by a new one with the same rights and what is left of its credits.

        The old one works for another `overlap_s`; meanwhile the credits are the new one's. Raises `InvalidRequest`
        if there is no such key, or if it is revoked.
        """
        old = self.get(key_id)
        if old.revoked_at is not None:
            raise InvalidRequest(f"key {key_id} is revoked; create a new one", field="id")
        created = self.create(
            old.name, old.scopes, active_limit=old.active_limit, priority=old.priority, expires_at=old.expires_at
        )
        end = self._clock() + overlap_s
        with self._database.write() as connection:
            row = connection.execute(select(KEYS.c.credits_milli).where(KEYS.c.id == key_id).with_for_update()).one()
            old_values: dict[str, Any] = {"rotated_to": created.key.id, "expires_at": min(end, old.expires_at or end)}
            if row.credits_milli is not None:
                old_values["credits_milli"] = 0
                new = update(KEYS).where(KEYS.c.id == created.key.id)
                connection.execute(new.values(credits_milli=row.credits_milli))
            connection.execute(update(KEYS).where(KEYS.c.id == key_id).values(old_values))
        return CreatedKey(self.get(created.key.id), created.text)

    def add_credits(self, key_id: str, credits_milli: int) -> Key:
        """Give a key more credits (or, below zero, take some). A key without a limit gets one."""
        self.get(key_id)
        with self._database.write() as connection:
            row = connection.execute(select(KEYS.c.credits_milli).where(KEYS.c.id == key_id).with_for_update()).one()
            total = (row.credits_milli or 0) + credits_milli
            connection.execute(update(KEYS).where(KEYS.c.id == key_id).values(credits_milli=total))
        return self.get(key_id)

    def limit_active(self, key_id: str, active_limit: int | None) -> Key:
        """Say how many jobs of a key may be active; None is the service's own limit. Raises `InvalidRequest`."""
        self.get(key_id)
        if active_limit is not None and active_limit < 0:
            raise InvalidRequest(f"active_limit is {active_limit}; use 0 or more", field="active_limit")
        with self._database.write() as connection:
            connection.execute(update(KEYS).where(KEYS.c.id == key_id).values(active_limit=active_limit))
        return self.get(key_id)


def is_well_formed(text: str) -> bool:
    """Whether a text can be a key at all: its form and its checksum are right. Needs no database."""
    return _FORM.fullmatch(text) is not None and text[-_CHECKSUM_LENGTH:] == _checksum(text[:-_CHECKSUM_LENGTH])


def _new_text() -> str:
    parts = ["".join(secrets.choice(_ALPHABET) for _ in range(length)) for length in (_ID_LENGTH, _SECRET_LENGTH)]
    text = "_".join(["licht", *parts])
    return text + _checksum(text)


def _checksum(text: str) -> str:
    """CRC-32 in base 62: a mistyped key is told from an unknown one, and scanners for leaked keys find few others."""
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def _prefix(text: str) -> str:
    match = _FORM.fullmatch(text)
    return match[1] if match is not None else ""


def _hash(text: str) -> str:
    """A plain hash is enough for 256 random bits: there is nothing to guess."""
    return hashlib.sha256(text.encode()).hexdigest()


def _scopes(scopes: Sequence[str]) -> list[str]:
    known = [scope.value for scope in Scope]
    for scope in scopes:
        if scope not in known:
            raise InvalidRequest(f"scope {scope!r} is unknown; use {', '.join(known)}", field="scope")
    if not scopes:
        raise InvalidRequest(f"a key needs a scope; use {', '.join(known)}", field="scope")
    return [scope for scope in known if scope in scopes]


def _key(row: AnyRow) -> Key:
    return Key(
        id=row.id,
        prefix=row.prefix,
        name=row.name,
        scopes=tuple(json.loads(row.scopes)),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        credits_milli=row.credits_milli,
        active_limit=row.active_limit,
        priority=row.priority,
        rotated_to=row.rotated_to,
    )
