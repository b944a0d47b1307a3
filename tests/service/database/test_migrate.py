import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from licht.core.errors import InvalidSettings, NotAvailable
from licht.service.database.connect import Database
from licht.service.database.migrate import migrate
from licht.service.database.tables import METADATA
from licht.service.queue.records import Outcome, State
from licht.service.queue.store import JobStore

OLD_ROWS = (
    (
        "INSERT INTO keys (id, prefix, hash, name, scopes, created_at, priority, fair_finish) "
        "VALUES ('key_1', 'licht_0', 'h', 'old', '[\"generate\"]', 1.0, 0, 0.0)"
    ),
    (
        "INSERT INTO jobs (id, key_id, route, state, task, created_at, available_at, priority, work, fair_start, rank, "
        "attempt, failures, deaths, cancel_requested, stage, progress, cost_milli, input_px, output_px, base_url) VALUES "
        "('old-job', 'key_1', 'flux-2-pro', 'queued', '{\"prompt\": \"a red sphere\", \"seed\": 1, \"width\": 64, "
        '"height": 64, "steps": null, "guidance": null, "inputs": [], "file_format": "PNG", '
        '"safety_tolerance": 2, "native_only": false, "notes": []}\', 1.0, 1.0, 0, 1.0, 0.0, 0.0, 0, 0, 0, FALSE, \'\', '
        "0.0, 3000, 0, 4096, 'http://testserver')"
    ),
)


def test_the_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    with database.write() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    before, after = migrate(database)
    assert before == after


def test_several_processes_may_migrate_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.sqlite3'}"
    databases = [Database(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(migrate, databases))
    assert sorted(before is None for before, _ in results) == [False, False, False, True]
    for database in databases:
        database.close()


def test_a_newer_database_is_left_alone(database: Database) -> None:
    _, newest = migrate(database)
    set_revision = "UPDATE alembic_version SET version_num = '{}'"
    with database.write() as connection:
        connection.exec_driver_sql(set_revision.format("9999"))
    with pytest.raises(InvalidSettings, match="revision 9999, which this version of Licht does not know"):
        migrate(database)
    with database.write() as connection:
        connection.exec_driver_sql(set_revision.format(newest))


def test_an_unusable_address_is_refused() -> None:
    for url in ("nonsense", "mysql://localhost/x"):
        with pytest.raises(InvalidSettings):
            Database(url)


def test_a_database_that_is_down_is_one_clear_error() -> None:
    down = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(NotAvailable, match="the database does not answer"), down.read():
        pass


def test_an_older_database_is_upgraded_with_what_is_in_it(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A file as version 0.1 left it, with a key and a job in hand, and the same in PostgreSQL."""
    schema = f"old_{uuid.uuid4().hex}"
    urls = [f"sqlite:///{tmp_path / 'old.sqlite3'}", f"{request.getfixturevalue('postgres')}"]
    for url in urls:
        sqlite = url.startswith("sqlite")
        database = Database(url if sqlite else f"{url}&options=-csearch_path%3D{schema}")
        if not sqlite:
            with database.write() as connection:
                connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        assert migrate(database, upto="0001") == (None, "0001")
        with database.write() as connection:
            for statement in OLD_ROWS:
                connection.exec_driver_sql(statement)
        before, after = migrate(database)
        assert before == "0001"
        assert after > "0001"
        store = JobStore(database)
        claim = store.leases.claim("w")
        assert claim is not None
        assert (claim.job_id, claim.task.prompt) == ("old-job", "a red sphere")
        store.leases.finish(claim, Outcome(State.READY, result={}, steps=4))
        assert store.get("old-job").state is State.READY
        with database.write() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, METADATA) == []
            if not sqlite:
                connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
        database.close()
