import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from licht.service.database.connect import Database, _when_free


def test_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    for attempt in range(10):
        databases = [Database(f"sqlite:///{tmp_path / str(attempt)}.sqlite3") for _ in range(8)]
        gate = threading.Barrier(len(databases))

        def mode(database: Database, gate: threading.Barrier = gate) -> str:
            gate.wait()
            with database.write() as connection:
                return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())

        with ThreadPoolExecutor(len(databases)) as pool:
            assert list(pool.map(mode, databases)) == ["wal"] * len(databases)
        for database in databases:
            database.close()


def test_what_sqlite_refuses_at_once_is_tried_again(tmp_path: Path) -> None:
    """Switching to WAL while another connection reads is refused, as by a race of two that switch."""
    file = tmp_path / "new.sqlite3"
    with ThreadPoolExecutor(1) as pool:
        reader = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        reader.execute("CREATE TABLE things (name TEXT)")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM things").fetchall()
        writer = sqlite3.connect(file, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            writer.execute("PRAGMA journal_mode=WAL")
        done = pool.submit(lambda: threading.Event().wait(0.1) or reader.execute("COMMIT"))
        _when_free(writer, "PRAGMA journal_mode=WAL")
        done.result()
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    writer.close()
    reader.close()


def test_what_is_wrong_is_not_tried_again() -> None:
    with pytest.raises(sqlite3.OperationalError, match="syntax"):
        _when_free(sqlite3.connect(":memory:"), "NONSENSE")
