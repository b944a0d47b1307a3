"""What one job costs the queue: claimed and finished by one worker, here and in two libraries. The last line is JSON.

    uv venv other && uv pip install --python other/bin/python procrastinate 'celery[sqlalchemy]' 'psycopg[binary]'
    python benchmarks/queue_stores.py --others other/bin/python

All use the same machine, the same disk and the same embedded PostgreSQL; the jobs do nothing. Ours writes result, metering
row, charge and sums in the transaction that ends a job; procrastinate ends the job; Celery acknowledges late and stores
the result, broker and results in SQLite files.
"""

import argparse
import json
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

_CASES: Final = ("procrastinate", "celery")


def _nothing() -> None:
    """A job."""


def ours(url: str, jobs: int) -> float:
    """Seconds that claiming and finishing all of them takes."""
    from licht.service.database.migrate import open_migrated
    from licht.service.keys import KeyStore
    from licht.service.queue.records import NewJob, Outcome, QueueLimits, State, Task
    from licht.service.queue.store import JobStore

    database = open_migrated(url)
    key = KeyStore(database).create("load").key.id
    store = JobStore(database, QueueLimits(active_limit=jobs))
    task = Task("a cube", 1, 64, 64)
    common: dict[str, Any] = {"key_id": key, "route": "flux-2-pro", "task": task, "work": 1.0, "cost_milli": 3000}
    common |= {"input_px": 0, "output_px": 4096, "base_url": "http://localhost"}
    store.submit(*(NewJob(id=str(uuid.uuid4()), **common) for _ in range(jobs)))
    begun = time.perf_counter()
    for _ in range(jobs):
        claim = store.leases.claim("worker")
        if claim is None:
            raise RuntimeError("a job is missing")
        store.leases.finish(claim, Outcome(State.READY, result={}))
    took_s = time.perf_counter() - begun
    database.close()
    return took_s


def procrastinate(url: str, jobs: int) -> float:
    """The same with procrastinate's worker."""
    library: Any = import_module("procrastinate")
    app = library.App(connector=library.SyncPsycopgConnector(conninfo=url))
    app.task(name="nothing")(_nothing)
    with app.open():
        app.schema_manager.apply_schema()
        app.tasks["nothing"].batch_defer(*({} for _ in range(jobs)))
    worker = app.with_connector(library.PsycopgConnector(conninfo=url))
    begun = time.perf_counter()
    worker.run_worker(wait=False, concurrency=1, install_signal_handlers=False, listen_notify=False)
    return time.perf_counter() - begun


def celery(folder: str, jobs: int) -> float:
    """The same with Celery's worker, over SQLAlchemy."""
    library: Any = import_module("celery")
    app = library.Celery("load", broker=f"sqla+sqlite:///{folder}/broker", backend=f"db+sqlite:///{folder}/results")
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)
    # it looks once a second otherwise
    import_module("kombu.transport.sqlalchemy").Transport.polling_interval = 0.001
    task = app.task(name="nothing")(_nothing)
    sent = [task.delay() for _ in range(jobs)]
    working = import_module("celery.contrib.testing.worker")
    begun = time.perf_counter()
    with working.start_worker(app, pool="solo", concurrency=1, perform_ping_check=False, shutdown_timeout=60):
        for result in sent:
            result.get(interval=0.02, timeout=600)
        return time.perf_counter() - begun


def _elsewhere(python: Path, case: str, where: str, jobs: int) -> float:
    """Run one of the others in the environment that has it."""
    command = [str(python), __file__, "--case", case, "--where", where, "--jobs", str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{case}: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def compare(python: Path | None, folder: Path, jobs: int) -> dict[str, float]:
    """Milliseconds a job, by store."""
    import psycopg

    pgserver: Any = import_module("pgserver")

    found = {"ours, SQLite": ours(f"sqlite:///{folder / 'ours.sqlite3'}", jobs)}
    server = pgserver.get_server(Path(tempfile.mkdtemp(prefix="queue-stores-")), cleanup_mode="delete")
    try:
        for name in ("ours", "theirs"):
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
        found["ours, PostgreSQL"] = ours(server.get_uri("ours"), jobs)
        if python is not None:
            found["procrastinate, PostgreSQL"] = _elsewhere(python, "procrastinate", server.get_uri("theirs"), jobs)
            found["Celery, SQLite"] = _elsewhere(python, "celery", str(folder), jobs)
    finally:
        server.cleanup()
    return {name: round(seconds / jobs * 1000, 2) for name, seconds in found.items()}


def main() -> None:
    """All of them, or with `--case` one in this environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    parser.add_argument("--others", type=Path, help="A Python that has procrastinate and Celery.")
    parser.add_argument("--case", choices=_CASES)
    parser.add_argument("--where", default="")
    given = parser.parse_args()
    if given.case is not None:
        cases: dict[str, Callable[[str, int], float]] = {"procrastinate": procrastinate, "celery": celery}
        print(json.dumps(cases[given.case](given.where, given.jobs)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        print(json.dumps({"jobs": given.jobs, "ms_a_job": compare(given.others, Path(folder), given.jobs)}))


if __name__ == "__main__":
    main()
