"""Brings a database up to the tables of this version. Safe to run from several processes at once."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from licht.core.errors import InvalidSettings
from licht.service.database.connect import Database

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x6C69636874
"""Any number will do, as long as nobody else uses it: "licht" in ASCII."""


def open_migrated(url: str) -> Database:
    """The database at `url`, made where there is none, with the tables of this version. Raises `InvalidSettings`."""
    database = Database(url)
    migrate(database)
    return database


def migrate(database: Database, upto: str | None = None) -> tuple[str | None, str]:
    """Run what is missing, all of it in one transaction; returns the revisions before and after.

    `upto` names an older revision to stop at. Raises `InvalidSettings` where a newer Licht has already been at work.
    """
    with database.read() as connection:
        found = revision_of(connection)
    newest_file = max(path.name for path in (_SCRIPTS / "versions").glob("r*.py"))
    if upto is None and found is not None and newest_file.startswith(f"r{found}_"):
        # the usual case, without the quarter of a second that importing Alembic takes
        return found, found
    return _run(database, upto)


def revision_of(connection: Connection) -> str | None:
    """The revision of the tables that are there; None where there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def _run(database: Database, upto: str | None) -> tuple[str | None, str]:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(_SCRIPTS))
    newest = upto or scripts.get_current_head()
    if newest is None:
        raise InvalidSettings(f"no migrations in {_SCRIPTS}; install Licht again")
    with database.write() as connection:
        _lock(connection)
        context = MigrationContext.configure(connection)
        before = context.get_current_revision()
        known = {script.revision for script in scripts.walk_revisions()}
        if before is not None and before not in known:
            raise InvalidSettings(
                f"the database is at revision {before}, which this version of Licht does not know; "
                "install the newer version, or restore the backup made before the upgrade",
                field="database.url",
            )
        with Operations.context(context):
            missing = [] if before == newest else list(scripts.iterate_revisions(newest, before or "base"))
            for script in reversed(missing):
                script.module.upgrade()
                context.stamp(scripts, script.revision)
    return before, newest


def _lock(connection: Connection) -> None:
    """SQLite's write transaction is exclusive already."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
