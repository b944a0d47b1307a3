"""Signed result links: whoever has one may fetch that picture, until it expires."""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

from licht.core.errors import NotAuthenticated
from licht.service.database.private import make_folder

_SECRET_FILE: Final = "link-secret"  # noqa: S105 - the name of a file
PATH: Final = "/v1/results/"


def signature(secret: bytes, job_id: str, expires: int) -> str:
    """HMAC-SHA-256 over the job and the second of expiry."""
    return hmac.new(secret, f"{job_id}:{expires}".encode(), hashlib.sha256).hexdigest()


def sign(secret: bytes, base_url: str, job_id: str, expires: int) -> str:
    """The link to a job's picture, good until `expires` (seconds since 1970)."""
    return f"{base_url}{PATH}{job_id}?expires={expires}&signature={signature(secret, job_id, expires)}"


def check(secret: bytes, job_id: str, expires: int, given: str, now: float) -> None:
    """Raise `NotAuthenticated` for a link that was changed or has expired."""
    good = hmac.compare_digest(signature(secret, job_id, expires).encode(), given.encode())
    if not good or expires < now:
        raise NotAuthenticated("the link has expired or was changed; ask for the result again")


def secret_in(folder: Path) -> bytes:
    """The secret of this installation, made on first use; several processes may come first."""
    path = folder / _SECRET_FILE
    if not path.exists():
        make_folder(folder)
        temporary = folder / f".{secrets.token_hex(8)}.part"
        temporary.touch(mode=0o600)
        temporary.write_text(secrets.token_hex(32), encoding="ascii")
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass  # another process was first; its secret counts
        finally:
            temporary.unlink()
    return path.read_bytes()
