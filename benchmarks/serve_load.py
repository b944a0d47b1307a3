"""How `licht serve` holds up: latency, memory, kills, fairness, overhead. The last line is JSON.

    python benchmarks/serve_load.py submit drain kill fair stop      # an engine that draws at once
    python benchmarks/serve_load.py overhead kill-nano               # the built-in model
    python benchmarks/serve_load.py submit --database postgresql://user@host/name

Each case starts a service of its own in a fresh folder below `--folder`, which should be on the disk that is meant.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from sqlalchemy import func, select

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' way of starting a service

from licht.service.database.connect import Database
from licht.service.database.tables import JOBS, METERING
from licht.service.keys import KeyStore
from licht.service.queue.records import NewJob, QueueLimits, Task
from licht.service.queue.register import Register
from licht.service.queue.store import JobStore
from tests.service.serving import Served, start, stop

Result = dict[str, Any]
_OPEN: Final = {"keys__active_limit": "1000000", "logging__level": "warning"}
_ROUTE: Final = "/v1/flux-2-pro"
_LEASE_S: Final = 3.0
_SETTLE_S: Final = 0.4
"""Threads of torch spin for a while after their work, and would take a core from the process that is next."""
_CALLERS: Final = 8
_BODY_MIB: Final = 120
_BUILT_IN: Final = ""
"""No other engine than Licht's own, which opens the built-in model."""


@dataclass(frozen=True)
class Options:
    """What all cases share; durations in seconds."""

    folder: Path
    database: str | None
    rate: float = 50.0
    seconds: float = 30.0
    jobs: int = 10_000
    kill_s: float | None = None
    kill_every_s: float | None = None
    least_kills: int = 0
    """On a slow machine the killing goes on until there were so many, and as many jobs."""
    pictures: int = 12
    drain_s: tuple[float, float] = (10.0, 2.0)
    """How long a service that stops may take: one whose job is to be finished, one whose job is not."""


@contextmanager
def service(options: Options, **settings: str) -> Iterator[Served]:
    """A ready service with an empty database and storage."""
    folder = Path(tempfile.mkdtemp(prefix="serve-load-", dir=options.folder))
    if options.database is not None:
        settings["database__url"] = options.database
    served = start(folder / "data", **{**_OPEN, **settings})
    try:
        served.until_ready(120)
        yield served
    finally:
        if served.process.poll() is None:
            stop(served)
        shutil.rmtree(folder, ignore_errors=True)


def database_of(served: Served, options: Options) -> Database:
    """The rows of a running service."""
    return Database(options.database or f"sqlite:///{served.data / 'licht.sqlite3'}")


def body(prompt: str = "a cube", **fields: object) -> Result:
    """A small picture."""
    return {"prompt": prompt, "width": 64, "height": 64, **fields}


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def until_idle(database: Database, timeout_s: float = 120) -> dict[str, int]:
    """Wait until no job is active; returns jobs by state."""
    end = time.monotonic() + timeout_s
    while True:
        with database.read() as connection:
            rows = connection.execute(select(JOBS.c.state, func.count()).group_by(JOBS.c.state)).all()
        states = {str(name): int(count) for name, count in rows}
        if not states.keys() & {"queued", "running"}:
            return states
        if time.monotonic() > end:
            raise TimeoutError(f"jobs are left after {timeout_s} s: {states}")
        time.sleep(0.1)


def submit(options: Options) -> Result:
    """Time to accept a job at a steady rate, while a worker draws them; an open loop, so that queueing counts.

    Beside it, the time of one alone. Where two would take longer than the rate leaves to one, the rate is less.
    """
    took_ms: list[float] = []

    async def run(served: Served, rate: float) -> None:
        headers = {"x-key": served.key}
        async with httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False, timeout=30) as client:

            async def one(due: float) -> None:
                response = await client.post(_ROUTE, json=body())
                took_ms.append((time.perf_counter() - due) * 1000)
                response.raise_for_status()

            tasks, begun = [], time.perf_counter()
            for number in range(int(options.rate * options.seconds)):
                due = begun + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.append(asyncio.create_task(one(time.perf_counter())))
            await asyncio.gather(*tasks)

    with service(options) as served:
        database = database_of(served, options)
        alone_ms = _submitted_alone_ms(served, database)
        rate = min(options.rate, 1000 / (2 * alone_ms))
        asyncio.run(run(served, rate))
        states = until_idle(database)
        database.close()
    warm = took_ms[int(options.rate) :]
    return {
        "rate_per_s": round(rate, 2),
        "alone_ms": round(alone_ms, 2),
        "submits": len(warm),
        "p50_ms": round(statistics.median(warm), 2),
        "p99_ms": round(statistics.quantiles(warm, n=100, method="inclusive")[98], 2),
        "max_ms": round(max(warm), 2),
        "ready": states["ready"],
    }


def _submitted_alone_ms(served: Served, database: Database) -> float:
    """The median time to accept a job when there is no other."""
    took_ms = []
    with served.client() as client:
        for _ in range(10):
            begun = time.perf_counter()
            client.post(_ROUTE, json=body()).raise_for_status()
            took_ms.append((time.perf_counter() - begun) * 1000)
            until_idle(database)
    return statistics.median(took_ms)


def drain(options: Options) -> Result:
    """Many queued jobs: how fast they are claimed and finished, and what that does to the memory of the worker."""
    with service(options, worker__count="1") as served:
        database = database_of(served, options)
        api, worker = served.children()
        os.kill(worker, signal.SIGSTOP)
        _fill(database, options.jobs)
        os.kill(worker, signal.SIGCONT)
        begun, seen = time.monotonic(), []
        done = 0
        while done < options.jobs:
            time.sleep(0.5)
            with database.read() as connection:
                done = connection.execute(select(func.count()).select_from(METERING)).scalar_one()
            seen.append((done / options.jobs, resident_mib(worker), resident_mib(api)))
        took_s = time.monotonic() - begun
        states = until_idle(database, 5)
        same = served.children() == [api, worker]
        database.close()
    # the first tenth fills caches and pools
    start_mib = max(worker for part, worker, _ in seen if part <= 0.1 or part == seen[0][0])
    end_mib = max(worker for part, worker, _ in seen if part > 0.9)
    return {
        "jobs": options.jobs,
        "ready": states["ready"],
        "jobs_per_s": round(options.jobs / took_s, 1),
        "worker_mib": [round(start_mib, 1), round(end_mib, 1)],
        "growth_percent": round((end_mib / start_mib - 1) * 100, 2),
        "api_mib": [round(seen[0][2], 1), round(seen[-1][2], 1)],
        "same_processes": same,
    }


def _fill(database: Database, jobs: int) -> None:
    """Queue jobs of ten keys directly, so that only what comes after is measured."""
    keys = [KeyStore(database).create(f"load {number}").key.id for number in range(10)]
    store = JobStore(database, QueueLimits(active_limit=jobs))
    for number in range(0, jobs, 100):
        batch = [
            NewJob(
                id=str(uuid.uuid4()),
                key_id=keys[number // 100 % len(keys)],
                route="flux-2-pro",
                task=Task("a cube", each, 64, 64),
                work=1.0,
                cost_milli=3000,
                input_px=0,
                output_px=64 * 64,
                base_url="http://localhost",
            )
            for each in range(number, min(number + 100, jobs))
        ]
        store.submit(*batch)


class Receiver:
    """Takes webhooks, and notes under which ids each job was told."""

    def __init__(self) -> None:
        self.ids: dict[str, set[str]] = {}
        self.calls = 0
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            """Answers 200, now and then 500, so that repeats are seen too."""

            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                if len(sent) < int(self.headers["Content-Length"]):
                    return  # whoever sent it was killed in the middle
                told = json.loads(sent)
                with lock:
                    outer.calls += 1
                    outer.ids.setdefault(told["id"], set()).add(self.headers["webhook-id"])
                    status = 500 if outer.calls % 7 == 0 else 200
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class Load(threading.Thread):
    """A careful client: it repeats a submit under the same token until there is an answer."""

    def __init__(self, served: Served, fields: Result, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.accepted: set[str] = set()
        self.repeats = 0
        self.unexpected: list[str] = []
        self.ended = threading.Event()
        self._served, self._fields, self._pause_s = served, fields, pause_s

    def run(self) -> None:
        """Submit until `ended`."""
        with self._served.client() as client:
            while not self.ended.is_set():
                self._one(client, uuid.uuid4().hex)
                time.sleep(self._pause_s)

    def _one(self, client: httpx.Client, token: str) -> None:
        while True:
            try:
                response = client.post(_ROUTE, json=self._fields, headers={"Idempotency-Key": token})
            except httpx.TransportError:
                self.repeats += 1
                continue
            if response.status_code == 200:
                self.accepted.add(response.json()["id"])
                return
            if response.status_code not in (409, 503):
                self.unexpected.append(response.text[:200])
                return
            self.repeats += 1
            time.sleep(0.02)


def kill(options: Options, nano: bool = False) -> Result:
    """SIGKILL of the API, the worker or both at random under load; then every accepted job is accounted for."""
    receiver = Receiver()
    # the built-in model takes seconds to come up, and is to get some work done between two kills
    seconds = options.kill_s or (300.0 if nano else 120.0)
    every_s = options.kill_every_s or (30.0 if nano else 1.0)
    settings = {
        "queue__lease_s": str(_LEASE_S), "queue__heartbeat_s": "1", "queue__max_deaths": "1000",
        "webhooks__schedule_s": ",".join(["0", *["1"] * 60]), "fetch__ports": str(receiver.port),
        "fetch__allow_networks": "127.0.0.0/8", "webhooks__timeout_s": "2",
    }  # fmt: skip
    if nano:
        settings["worker__engine"] = _BUILT_IN
    fields = body("a red sphere" if nano else "slow 0.02", webhook_url=f"http://127.0.0.1:{receiver.port}/")
    with service(options, **settings) as served:
        database = database_of(served, options)
        load = Load(served, fields, 1.0 if nano else 0.05)
        load.start()
        kills = _kill_for(seconds, every_s, options.least_kills, served, database)
        while len(load.accepted) < options.least_kills:
            time.sleep(0.1)
        load.ended.set()
        load.join(60)
        states = until_idle(database, 300)
        _until_told(receiver, load.accepted, 60)
        counted = _account(database, load.accepted)
        gap_s = _longest_gap(database)
        database.close()
    receiver.close()
    return {
        "seconds": seconds,
        "kills": kills,
        "accepted": len(load.accepted),
        "repeated_submits": load.repeats,
        "states": states,
        **counted,
        "webhook_calls": receiver.calls,
        "jobs_told": len(receiver.ids.keys() & load.accepted),
        "webhooks_with_two_ids": sum(len(ids) > 1 for ids in receiver.ids.values()),
        "unexpected_answers": load.unexpected[:3],
        "lease_s": _LEASE_S,
        "longest_time_between_starts_s": round(gap_s, 2),
    }


def kill_nano(options: Options) -> Result:
    """The same with the built-in model."""
    return kill(options, nano=True)


def _kill_for(seconds: float, every_s: float, least: int, served: Served, database: Database) -> int:
    """For so many `seconds` kill about every `every_s` the API, the worker or both, of those that have come up.

    Returns how many it killed: `least` at least, however long that takes.
    """
    kills = 0
    end = time.monotonic() + seconds
    with served.client() as client:
        client.timeout = httpx.Timeout(0.5)
        while time.monotonic() < end or kills < least:
            time.sleep(every_s * random.uniform(0.5, 1.5))
            up = _up(served, client, database)
            for pid in random.sample(sorted(up), k=random.randint(1, len(up))) if up else []:
                os.kill(pid, signal.SIGKILL)
                kills += 1
    return kills


def _up(served: Served, client: httpx.Client, database: Database) -> set[int]:
    """Processes that do what they are for: the API answers, the worker has drawn its first picture."""
    ready = {row.pid for row in Register(database).list() if row.ready_at is not None}
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in served.children()}
    up = {pid for pid in commands if pid in ready}
    try:
        client.get("/livez").raise_for_status()
    except httpx.HTTPError:
        return up
    return up | {pid for pid, command in commands.items() if b"\0api\0" in command}


def _longest_gap(database: Database) -> float:
    """The longest time between two starts of jobs, in seconds."""
    with database.read() as connection:
        starts = sorted(connection.execute(select(JOBS.c.started_at).where(JOBS.c.started_at.is_not(None))).scalars())
    return max((later - earlier for earlier, later in itertools.pairwise(starts)), default=0.0)


def _until_started(database: Database, since: float, timeout_s: float) -> float:
    """Seconds until some job was started after `since` (seconds since 1970)."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with database.read() as connection:
            first = connection.execute(select(func.min(JOBS.c.started_at)).where(JOBS.c.started_at > since)).scalar()
        if first is not None:
            return float(first) - since
        time.sleep(0.05)
    raise TimeoutError(f"no job was started in {timeout_s} s")


def _until_told(receiver: Receiver, accepted: set[str], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while accepted - receiver.ids.keys() and time.monotonic() < end:
        time.sleep(0.1)


def _account(database: Database, accepted: set[str]) -> Result:
    with database.read() as connection:
        ended = set(connection.execute(select(JOBS.c.id)).scalars())
        metered = [(job, cost) for job, cost in connection.execute(select(METERING.c.job_id, METERING.c.cost_milli))]
    jobs = [job for job, _ in metered]
    return {
        "lost": len(accepted - ended),
        "not_asked_for": len(ended - accepted),
        "twice": len(jobs) - len(set(jobs)),
        "charged_wrongly": sum(cost != 3000 for _, cost in metered),
        "unmetered": len(accepted - set(jobs)),
    }


def fair(options: Options) -> Result:
    """A short job of one key behind fifty long ones of another."""
    with service(options) as served:
        database = database_of(served, options)
        other = KeyStore(database).create("other").text
        with served.client() as client:
            long = [client.post(_ROUTE, json=body("slow 0.25", steps=4)).json()["id"] for _ in range(50)]
            short = client.post(_ROUTE, json=body(steps=1), headers={"x-key": other}).json()["id"]
            at = time.time()
            while True:
                job = client.get(f"/v1/jobs/{short}", headers={"x-key": other}).json()
                if job["state"] == "ready":
                    break
                time.sleep(0.02)
            waited_s = job["started_at"] - at
            others = [client.get(f"/v1/jobs/{each}").json()["started_at"] for each in long]
            between = sum(each is not None and job["created_at"] < each < job["started_at"] for each in others)
            for each in long:
                client.post(f"/v1/jobs/{each}/cancel")
        database.close()
    return {
        "long_jobs": len(long),
        "long_job_s": 1.0,
        "short_job_waited_s": round(waited_s, 2),
        "started_before_it": between,
    }


def stopping(options: Options) -> Result:
    """SIGTERM with a job in hand: one that ends within the limit is finished, one that does not goes back."""
    found: Result = {}
    for name, prompt, drain_s in zip(("finished", "handed_back"), ("slow 0.5", "slow 3"), options.drain_s, strict=True):
        with service(options, server__drain_s=str(drain_s)) as served:
            database = database_of(served, options)
            with served.client() as client:
                job = client.post(_ROUTE, json=body(prompt, steps=3)).json()["id"]
            _until_started(database, 0.0, 120)
            found[name] = {**stopped(served, database, job), "limit_s": drain_s}
    return found


def stopped(served: Served, database: Database, job: str) -> Result:
    """Stop the service with SIGTERM: what has become of a job, and how long it took."""
    begun = time.monotonic()
    code = stop(served)
    took_s = time.monotonic() - begun
    row = JobStore(database).get(job)
    database.close()
    return {
        "state": row.state.value, "deaths": row.deaths, "failures": row.failures, "exit_code": code,
        "took_s": round(took_s, 2),
    }  # fmt: skip


def overhead(options: Options) -> Result:
    """What the service adds to the bare engine, picture by picture; in turns, so that both see the same machine."""
    from licht import load

    model = load("nano")
    prompts = [f"a large red sphere on a gray floor, take {number}" for number in range(options.pictures)]
    model.generate(prompts[0], seed=0, size=(128, 128))
    bare_s, served_s = [], []
    with service(options, worker__engine=_BUILT_IN) as served, served.client() as client:
        _draw(client, prompts[0])
        for prompt in prompts:
            time.sleep(_SETTLE_S)
            begun = time.perf_counter()
            model.generate(prompt, seed=1, size=(128, 128))
            bare_s.append(time.perf_counter() - begun)
            time.sleep(_SETTLE_S)
            served_s.append(_draw(client, prompt))
    bare, full = statistics.median(bare_s), statistics.median(served_s)
    return {
        "pictures": options.pictures,
        "bare_ms": round(bare * 1000, 1),
        "served_ms": round(full * 1000, 1),
        "overhead_ms": round((full - bare) * 1000, 1),
        "overhead_percent": round((full / bare - 1) * 100, 1),
    }


def _draw(client: httpx.Client, prompt: str) -> float:
    """Seconds from the submit to the event that the picture is there."""
    begun = time.perf_counter()
    told = client.post(_ROUTE, json={"prompt": prompt, "seed": 1, "width": 128, "height": 128, "output_format": "png"})
    with client.stream("GET", f"/v1/jobs/{told.json()['id']}/events", timeout=120) as stream:
        for line in stream.iter_lines():
            if line == "event: end":
                return time.perf_counter() - begun
    raise RuntimeError("the events ended without an end")


def bodies(options: Options) -> Result:
    """Eight callers at once with 120 MiB each, without a key and with one: the most that the API takes of memory."""
    found: Result = {}
    with service(options) as served:
        api = served.children()[0]
        for name, key in (("without_a_key", ""), ("with_a_key", served.key)):
            Path(f"/proc/{api}/clear_refs").write_text("5", encoding="ascii")
            before_mib = resident_mib(api)
            with ThreadPoolExecutor(_CALLERS) as pool:
                answers = list(pool.map(lambda _, key=key: _large(served.url, key), range(_CALLERS)))
            found[name] = {
                "answers": answers,
                "before_mib": round(before_mib, 1),
                "peak_mib": round(_peak_mib(api), 1),
            }
    return {"callers": _CALLERS, "body_mib": _BODY_MIB, **found}


def _large(url: str, key: str) -> str:
    """Send one large body; returns what came back: a status, or that the connection was cut off."""
    host = urlsplit(url)
    connection = HTTPConnection(host.hostname or "", host.port, timeout=120)
    head, piece, tail = b'{"prompt": "a cube", "input_image": "', b"A" * 2**20, b'"}'
    try:
        connection.putrequest("POST", _ROUTE)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(head) + _BODY_MIB * len(piece) + len(tail)))
        if key:
            connection.putheader("x-key", key)
        connection.endheaders(head)
        for _ in range(_BODY_MIB):
            connection.send(piece)
        connection.send(tail)
        return str(connection.getresponse().status)
    except OSError:
        return "cut off"
    finally:
        connection.close()


def _peak_mib(pid: int) -> float:
    """The most resident memory of a process since it was last reset."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


CASES: Final[dict[str, Callable[[Options], Result]]] = {
    "submit": submit,
    "drain": drain,
    "kill": kill,
    "kill-nano": kill_nano,
    "fair": fair,
    "stop": stopping,
    "overhead": overhead,
    "bodies": bodies,
}


def main() -> None:
    """Run the cases that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    parser.add_argument("--database")
    for name, kind in (("rate", float), ("seconds", float), ("jobs", int), ("pictures", int)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--kill-s", type=float)
    parser.add_argument("--kill-every-s", type=float)
    given = vars(parser.parse_args())
    cases = given.pop("cases")
    options = replace(Options(given.pop("folder"), given.pop("database")), **{k: v for k, v in given.items() if v})
    results: Result = {}
    for case in cases:
        results[case] = CASES[case](options)
        print(case, json.dumps(results[case]), flush=True)
    print(json.dumps({"machine": f"{platform.machine()}, {os.cpu_count()} cores", "results": results}))


if __name__ == "__main__":
    main()
