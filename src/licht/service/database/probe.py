"""Looks at a database without making anything: for the commands that must not, and before anything starts."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import URL, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from licht.core.errors import InvalidSettings
from licht.service.database.connect import Database, parse_address
from licht.service.database.migrate import migrate

_PATIENCE_S: Final = 5
_REVISION: Final = "SELECT version_num FROM alembic_version"


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
    database = Database(address)
    migrate(database)
    return database


def _in_file(path: Path) -> str | None:
    if not path.exists():
        nearest = next(each for each in path.absolute().parents if each.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            raise InvalidSettings(f"{path} cannot be made: {nearest} is no folder that can be written to", field="data")
        return None
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_S)
        try:
            tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            row = connection.execute(_REVISION).fetchone() if tables is not None else None
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InvalidSettings(f"{path} is no database that can be read; name another one", field="data") from error
    return str(row[0]) if row is not None else None


def _on_server(url: URL) -> str | None:
    engine = create_engine(url, connect_args={"connect_timeout": _PATIENCE_S})
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            revision: str | None = connection.execute(text(_REVISION)).scalar()
            return revision
    except SQLAlchemyError as error:
        raise InvalidSettings(
            f"the database {url.render_as_string(hide_password=True)} does not let anybody in; "
            "see whether it runs, and check host, name, user and password",
            field="database.url",
        ) from error
    finally:
        engine.dispose()
