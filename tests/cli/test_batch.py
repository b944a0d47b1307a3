import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from licht.core.errors import OutOfMemory, OutputFailed
from licht.files.journal import Journal
from licht.model.transformer import Flux2Transformer
from tests.cli.conftest import Licht, Outcome
from tests.support.pictures import write_image

Batch = Callable[..., Outcome]


@pytest.fixture
def batch(licht: Licht, tiny: Path) -> Batch:
    """Runs `licht batch jobs.jsonl OPTIONS` with the small model and bare pixels."""

    def command(*options: str | Path) -> Outcome:
        return licht("batch", "jobs.jsonl", "-m", tiny, "--device", "cpu", "--policy", "off", *options)

    return command


def write_jobs(here: Path, *jobs: object) -> None:
    lines = [job if isinstance(job, str) else json.dumps(job) for job in jobs]
    (here / "jobs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def results(here: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (here / "jobs.results.jsonl").read_text("utf-8").splitlines()]


def test_every_job_is_drawn_and_has_one_line(batch: Batch, here: Path) -> None:
    write_image(here / "a.png", 80, 64)
    write_jobs(
        here,
        {"prompt": "a cat", "seed": 1},
        "",
        {
            "prompt": {"scene": "x"},
            "images": [{"path": "a.png", "role": "style"}],
            "num": 2,
            "seed": 5,
            "name": "styled",
        },
        {"prompt": "x", "aspect": "2:1", "steps": 1, "finish": "film"},
    )
    outcome = batch()
    assert (outcome.code, outcome.out) == (0, "jobs.results.jsonl\n")
    warning = "the prompt is too long for tiny: the first 40 of 80 tokens were used"
    assert outcome.err == f"line 3: warning: {warning}\n3 drawn\n"
    assert [(line["line"], line["status"]) for line in results(here)] == [(1, "ready"), (3, "ready"), (4, "ready")]
    first, second, _ = results(here)
    assert second["warnings"] == [warning]
    assert first["images"] == [{"path": "0001.png", "seed": 1, "width": 128, "height": 64}]
    assert [(one["path"], one["seed"]) for one in second["images"]] == [("styled-1.png", 5), ("styled-2.png", 6)]  # type: ignore[attr-defined]
    assert sorted(path.name for path in (here / "jobs").iterdir()) == [
        "0001.png",
        "0004.png",
        "styled-1.png",
        "styled-2.png",
    ]
    assert sorted(path.name for path in here.iterdir()) == ["a.png", "jobs", "jobs.jsonl", "jobs.results.jsonl"]


def test_a_line_that_is_no_job_is_named_and_the_others_run(batch: Batch, here: Path) -> None:
    write_jobs(
        here, {"prompt": "x", "seed": 1}, "oops", {"prompt": "x", "sede": 1}, {"prompt": "x", "start": "none.png"}
    )
    outcome = batch()
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        'line 2: the line is not JSON (Expecting value at column 1); write {"prompt": "..."}',
        "line 3: sede: is no field of a job; correct the line",
        "line 4: none.png cannot be read (No such file or directory); check the path",
        "1 drawn, 3 failed",
    ]
    failed = results(here)[1:]
    assert [line["error"]["code"] for line in failed] == ["invalid_request", "invalid_request", "invalid_image"]  # type: ignore[index]
    again = batch("--json")
    assert again.code == 1
    report = json.loads(again.out)
    assert (report["drawn"], report["drawn_before"], report["failed"]) == (0, 1, 3)
    assert len(results(here)) == 4


def test_if_nothing_could_be_drawn_the_code_is_2(batch: Batch, here: Path) -> None:
    write_jobs(here, "oops", {"prompt": "@image1"})
    assert batch().code == 2


def test_what_is_drawn_is_not_drawn_again_and_what_has_changed_is(batch: Batch, here: Path) -> None:
    write_jobs(here, {"prompt": "a", "seed": 1}, {"prompt": "b", "seed": 1}, {"prompt": "c", "seed": 1})
    batch()
    before = {path.name: path.stat().st_mtime_ns for path in (here / "jobs").iterdir()}
    (here / "jobs" / "0002.png").unlink()
    outcome = batch()
    assert (outcome.code, outcome.err) == (0, "1 drawn, 2 drawn before\n")
    after = {path.name: path.stat().st_mtime_ns for path in (here / "jobs").iterdir()}
    assert before.keys() == after.keys()
    assert {name for name in after if after[name] != before[name]} == {"0002.png"}
    write_jobs(here, {"prompt": "a", "seed": 1}, {"prompt": "other", "seed": 1}, {"prompt": "c", "seed": 1})
    assert "0002.png exists; choose another name or pass --overwrite" in batch().err
    assert (here / "jobs" / "0002.png").stat().st_mtime_ns == after["0002.png"]
    assert batch("--overwrite").code == 0
    # other options are other pictures: neither taken for those that are there, nor written over them
    outcome = batch("--finish", "film")
    assert outcome.code == 2
    assert "0001.png exists; choose another name or pass --overwrite" in outcome.err
    assert batch("--finish", "film", "--overwrite").err == "3 drawn\n"
    assert len(results(here)) == 3
    assert batch("--finish", "film").err == "0 drawn, 3 drawn before\n"
    assert "0001.png exists" in batch().err
    assert batch("-o", "plain").err == "3 drawn\n"
    assert batch("--finish", "film").err == "0 drawn, 3 drawn before\n"


KILLED_BEFORE_ITS_LINE = """
from licht.files.journal import Journal
write, calls = Journal.end, []
def end(self, record):
    calls.append(1)
    if len(calls) == 8:
        os.kill(os.getpid(), 9)
    write(self, record)
Journal.end = end
"""
KILLED_IN_ITS_LINE = """
from licht.files import journal
append, calls = journal._append, []
def torn(file, line, path):
    if "status" in line:
        calls.append(1)
        if len(calls) == 8:
            file.write(line[:20])
            file.flush()
            os.kill(os.getpid(), 9)
    append(file, line, path)
journal._append = torn
"""
KILLED_WHILE_WRITING = """
from licht.safety import policy
publish, calls = policy._publish, []
def killed(temporary, path, overwrite):
    calls.append(1)
    if len(calls) == 8:
        os.kill(os.getpid(), 9)
    publish(temporary, path, overwrite)
policy._publish = killed
"""


@pytest.mark.slow
@pytest.mark.parametrize("killer", [KILLED_BEFORE_ITS_LINE, KILLED_IN_ITS_LINE, KILLED_WHILE_WRITING])
def test_a_batch_of_twenty_killed_in_the_middle_goes_on(batch: Batch, here: Path, tiny: Path, killer: str) -> None:
    write_jobs(here, *({"prompt": f"picture {n}", "seed": n, "steps": 1} for n in range(20)))
    program = f"import os, sys\n{killer}\nfrom licht.cli.main import run\nsys.exit(run(sys.argv[1:]))"
    options = ["batch", "jobs.jsonl", "-m", str(tiny), "--device", "cpu", "--policy", "off"]
    done = subprocess.run(
        [sys.executable, "-c", program, *options], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, cwd=here
    )
    assert done.returncode == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in (here / "jobs").glob("*.png")}
    assert 7 <= len(before) <= 8
    outcome = batch()
    assert (outcome.code, outcome.err) == (0, "13 drawn, 7 drawn before\n")
    assert [line["line"] for line in results(here)] == list(range(1, 21))
    assert {line["status"] for line in results(here)} == {"ready"}
    after = {path.name: path.stat().st_mtime_ns for path in (here / "jobs").iterdir()}
    assert sorted(after) == [f"{n:04}.png" for n in range(1, 21)]
    assert [name for name in sorted(before)[:7] if after[name] != before[name]] == []
    assert all(np.asarray(Image.open(here / "jobs" / name)).std() > 5 for name in after)
    assert sorted(path.name for path in here.iterdir()) == ["jobs", "jobs.jsonl", "jobs.results.jsonl"]


def test_a_full_disk_stops_the_batch_and_loses_nothing(
    batch: Batch, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jobs(here, *({"prompt": "x", "seed": n, "steps": 1} for n in range(3)))
    end = Journal.end

    def full(self: Journal, record: dict[str, object]) -> None:
        if record["line"] == 2:
            raise OutputFailed("jobs.results.jsonl cannot be written (No space left on device); make room")
        end(self, record)

    monkeypatch.setattr(Journal, "end", full)
    outcome = batch()
    assert (outcome.code, outcome.out) == (1, "")
    assert "No space left on device" in outcome.error
    # nothing at all could be written
    monkeypatch.setattr(Journal, "begin", lambda self, key: full(self, {"line": 2}))
    assert batch("--results", "other.jsonl", "-o", "other").code == 2
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert batch().err == "2 drawn, 1 drawn before\n"


def test_one_job_that_fails_while_it_is_drawn_does_not_stop_the_others(
    batch: Batch, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jobs(here, *({"prompt": "x", "seed": n, "steps": 1} for n in range(3)))
    forward, calls = Flux2Transformer.forward, []

    def failing(network: Flux2Transformer, *args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        return forward(network, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Flux2Transformer, "forward", failing)
    assert batch().code == 1
    assert [line["status"] for line in results(here)] == ["ready", "failed", "ready"]
    assert results(here)[1]["error"]["code"] == OutOfMemory.code  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "jobs.jsonl holds no job"),
        (b"\n \n", "jobs.jsonl holds no job"),
        (b"\xff\xfe", "jobs.jsonl is no text in UTF-8"),
        (None, "jobs.jsonl cannot be read (No such file or directory)"),
    ],
)
def test_a_file_without_jobs_is_refused(batch: Batch, here: Path, text: bytes | None, message: str) -> None:
    if text is not None:
        (here / "jobs.jsonl").write_bytes(text)
    outcome = batch()
    assert outcome.code == 2
    assert message in outcome.error


def test_two_jobs_of_one_name_and_odd_places_are_refused(batch: Batch, here: Path) -> None:
    write_jobs(here, {"prompt": "x", "name": "a", "steps": 1}, {"prompt": "y", "name": "a"})
    assert "line 2: name: line 1 is called a too; choose another" in batch().err
    write_jobs(here, {"prompt": "x", "name": "b", "num": 2, "steps": 1}, {"prompt": "y", "name": "b-2"})
    assert "line 2: name: line 1 is called b-2 too; choose another" in batch().err
    assert "has no suffix of a known format" in batch("--format", "gif").error
    assert "cannot be made" in batch("-o", here / "jobs.jsonl" / "x").error
    assert "is no result of a batch" in batch("--results", here / "jobs.jsonl").error
