"""How `licht serve` behaves with the built-in model: whose turn it is, cancelling, stopping. The last line is JSON.

    python benchmarks/serve_nano.py fair cancel stop

All times are measured against one job or one step of the same run, so that a busy machine does not matter much.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))  # for what benchmarks/serve_load.py has

from benchmarks.serve_load import Options, Result, database_of, service, stopped
from licht.service.keys import KeyStore

_BUILT_IN: Final = {"worker__engine": ""}
_LOOK_S: Final = 0.005
_STEPS: Final = 20
_CANCELS: Final = 6
_LONG: Final[Result] = {"prompt": "a red sphere on a gray floor", "width": 128, "height": 128, "steps": _STEPS}


def fair(options: Options) -> Result:
    """A short job of one key behind fifty long ones of another."""
    with service(options, **_BUILT_IN) as served:
        database = database_of(served, options)
        other = {"x-key": KeyStore(database).create("other").text}
        with served.client() as client:
            alone = _ended(client, _submit(client, _LONG))
            long_s = alone["finished_at"] - alone["started_at"]
            long = [_submit(client, _LONG) for _ in range(50)]
            _until(client, long[0], lambda job: job["state"] == "running")
            short = _submit(client, {**_LONG, "steps": 1}, other)
            ended = _ended(client, short, other)
            others = [client.get(f"/v1/jobs/{each}").json()["started_at"] for each in long]
            for each in long:
                client.post(f"/v1/jobs/{each}/cancel")
        database.close()
    waited_s = ended["started_at"] - ended["created_at"]
    between = sum(each is not None and ended["created_at"] < each < ended["started_at"] for each in others)
    return {
        "long_jobs": len(long),
        "long_job_s": round(long_s, 3),
        "short_job_waited_s": round(waited_s, 3),
        "waited_of_a_long_job": round(waited_s / long_s, 2),
        "started_before_it": between,
    }


def cancel(options: Options) -> Result:
    """From the cancelling of a running job to its end, in steps of the same job left alone."""
    took_s: list[float] = []
    with service(options, **_BUILT_IN) as served, served.client() as client:
        whole = _ended(client, _submit(client, _LONG))
        step_s = (whole["finished_at"] - whole["started_at"]) / _STEPS
        for number in range(_CANCELS):
            job = _submit(client, {**_LONG, "seed": number})
            _until(client, job, lambda told: told["stage"] == "denoise")
            # at another place between two steps each time
            time.sleep(step_s * number / _CANCELS)
            asked_at = time.time()
            client.post(f"/v1/jobs/{job}/cancel")
            ended = _ended(client, job)
            if ended["state"] == "cancelled":
                took_s.append(ended["finished_at"] - asked_at)
    return {
        "cancelled": len(took_s),
        "step_ms": round(step_s * 1000, 1),
        "median_ms": round(statistics.median(took_s) * 1000, 1),
        "longest_ms": round(max(took_s) * 1000, 1),
        "median_steps": round(statistics.median(took_s) / step_s, 2),
        "longest_steps": round(max(took_s) / step_s, 2),
    }


def stopping(options: Options) -> Result:
    """SIGTERM with a picture in hand: one that ends within the limit is finished, one that does not goes back."""
    found: Result = {}
    for name, fields, drain_s in (
        ("finished", {"steps": 10}, 60.0),
        ("handed_back", {"steps": _STEPS, "candidates": 8}, 2.0),
    ):
        with service(options, **_BUILT_IN, server__drain_s=str(drain_s)) as served:
            database = database_of(served, options)
            with served.client() as client:
                job = _submit(client, {**_LONG, **fields})
                _until(client, job, lambda told: told["stage"] == "denoise")
            found[name] = {**stopped(served, database, job), "limit_s": drain_s}
    return found


def _submit(client: httpx.Client, picture: Result, headers: dict[str, str] | None = None) -> str:
    told = client.post("/v1/jobs", json=picture, headers=headers)
    told.raise_for_status()
    return str(told.json()["id"])


def _until(
    client: httpx.Client, job: str, true: Callable[[Result], bool], headers: dict[str, str] | None = None
) -> Result:
    """The job as soon as it is so."""
    end = time.monotonic() + 120
    while True:
        told: dict[str, Any] = client.get(f"/v1/jobs/{job}", headers=headers).json()
        if true(told):
            return told
        if time.monotonic() > end:
            raise TimeoutError(f"job {job} is still {told['state']}")
        time.sleep(_LOOK_S)


def _ended(client: httpx.Client, job: str, headers: dict[str, str] | None = None) -> Result:
    return _until(client, job, lambda told: told["finished_at"] is not None, headers)


CASES: Final[dict[str, Callable[[Options], Result]]] = {"fair": fair, "cancel": cancel, "stop": stopping}


def main() -> None:
    """Run the cases that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    given = parser.parse_args()
    results: Result = {}
    for case in given.cases:
        results[case] = CASES[case](Options(given.folder, None))
        print(case, json.dumps(results[case]), flush=True)
    print(json.dumps({"machine": f"{platform.machine()}, {os.cpu_count()} cores", "results": results}))


if __name__ == "__main__":
    main()
