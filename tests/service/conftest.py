"""Databases to test on: the same tests run on SQLite and on an embedded PostgreSQL."""

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from licht.service.database.connect import Database
from licht.service.database.migrate import migrate
from licht.service.database.tables import METADATA
from licht.service.keys import KeyStore
from licht.service.queue.records import NewJob, QueueLimits, Task
from licht.service.queue.store import JobStore

PATIENCE_S = 60.0
"""How long a test waits for what has to happen: a machine may be slow, and only what never comes is a failure."""


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server that lives as long as the tests."""
    pgserver = pytest.importorskip("pgserver", reason="the embedded PostgreSQL (pgserver) has no build for this Python")
    from pgserver import postgres_server

    with pytest.MonkeyPatch.context() as patched:
        # it gives its server ten seconds to come up, and then falls over the log that is not there yet
        start = vars(postgres_server)["pg_ctl"]
        patched.setattr(
            postgres_server,
            "pg_ctl",
            lambda arguments, pgdata, **options: start(arguments, pgdata, **{**options, "timeout": PATIENCE_S}),
        )
        # not below pytest's own folder: as root, the server is another user, and every pytest that starts on the same
        # machine shuts that folder for others, in the middle of this one's start if need be
        folder = Path(tempfile.mkdtemp(prefix="licht-postgres-"))
        server = pgserver.get_server(folder, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy: making one costs more than most tests."""
    path = tmp_path_factory.mktemp("sqlite") / "licht.sqlite3"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated database, empty."""
    if request.param == "sqlite":
        path = tmp_path / "licht.sqlite3"
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), path)
        opened = Database(f"sqlite:///{path}")
        yield opened
        opened.close()
        return
    opened = Database(request.getfixturevalue("postgres"))
    migrate(opened)
    yield opened
    with opened.write() as connection:
        names = ", ".join(table.name for table in METADATA.sorted_tables)
        connection.exec_driver_sql(f"TRUNCATE {names}")
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits() -> QueueLimits:
    return QueueLimits(lease_s=10, retry_delay_s=1, active_limit=100)


@pytest.fixture
def store(database: Database, limits: QueueLimits, clock: Clock) -> JobStore:
    return JobStore(database, limits, clock)


@pytest.fixture
def keys(database: Database, clock: Clock) -> KeyStore:
    return KeyStore(database, clock)


NewJobs = Callable[..., NewJob]


@pytest.fixture
def key_id(keys: KeyStore) -> str:
    return keys.create("tests").key.id


@pytest.fixture
def new_job(key_id: str) -> NewJobs:
    """Builds a job of the key `key_id`; what a test cares about is passed by name."""

    def build(**changes: object) -> NewJob:
        values: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "key_id": key_id,
            "route": "flux-2-pro",
            "task": Task("a red sphere", 1, 64, 64),
            "work": 1.0,
            "cost_milli": 3000,
            "input_px": 0,
            "output_px": 64 * 64,
            "base_url": "http://testserver",
        }
        values.update(changes)
        return NewJob(**values)

    return build
