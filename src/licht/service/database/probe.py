"""Looks at a database without making anything: for the commands that must not, and before anything starts."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError

from licht.core.errors import InvalidSettings
from licht.service.database.connect import Database, parse_address
from licht.service.database.migrate import open_migrated, revision_of

_PATIENCE_S: Final = 5


def probe(address: str) -> str | None:
    """The revision of the service's tables there; None where there are none yet, but could be.

    Raises `InvalidSettings` for an address that cannot be used.
    """
    url = parse_address(address)
    return _in_file(Path(url.database or "")) if url.get_backend_name() == "sqlite" else _on_server(url)


def open_existing(address: str) -> Database:
    """The database of a service that has run before, brought up to this version. Raises `InvalidSettings`."""
    if probe(address) is None:
        shown = parse_address(address).render_as_string(hide_password=True)
        raise InvalidSettings(
            f"there is no service at {shown}; name its folder with --data, or its settings with --settings",
            field="database.url",
        )
    return open_migrated(address)


def _in_file(path: Path) -> str | None:
    if not path.exists():
        nearest = next(each for each in path.absolute().parents if each.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            raise InvalidSettings(f"{path} cannot be made: {nearest} is no folder that can be written to", field="data")
        return None
    address = f"{path.absolute().as_uri()}?mode=ro"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(address, uri=True, timeout=_PATIENCE_S))
    return _revision(engine, InvalidSettings(f"{path} is no database that can be read; name another one", field="data"))


def _on_server(url: URL) -> str | None:
    engine = create_engine(url, connect_args={"connect_timeout": _PATIENCE_S})
    shown = url.render_as_string(hide_password=True)
    refusal = InvalidSettings(
        f"the database {shown} does not let anybody in; see whether it runs, and check host, name, user and password",
        field="database.url",
    )
    return _revision(engine, refusal)


def _revision(engine: Engine, refusal: InvalidSettings) -> str | None:
    try:
        with engine.connect() as connection:
            return revision_of(connection)
    except SQLAlchemyError as error:
        raise refusal from error
    finally:
        engine.dispose()
