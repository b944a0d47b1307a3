from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from licht.core.errors import InvalidSettings, NotAvailable
from licht.service.database.connect import Database
from licht.service.database.migrate import migrate
from licht.service.database.tables import METADATA


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
