"""Processes end only when the threads beside them have nothing left to do."""

import threading
import time
from pathlib import Path

import pytest

from licht.training import rest
from licht.training.rest import let_threads_rest

LINUX = Path("/proc/self/task").is_dir()


def busy(until: threading.Event, seen: list[int]) -> None:
    while not until.is_set():
        seen.append(1)


@pytest.mark.skipif(not LINUX, reason="only Linux says what threads do")
def test_it_waits_for_a_thread_that_runs() -> None:
    done, seen = threading.Event(), list[int]()
    thread = threading.Thread(target=busy, args=(done, seen))
    thread.start()
    threading.Timer(0.6, done.set).start()
    begun = time.monotonic()
    let_threads_rest(60.0)
    assert time.monotonic() - begun > 0.5
    assert done.is_set()
    thread.join()


@pytest.mark.skipif(not LINUX, reason="only Linux says what threads do")
def test_it_waits_no_longer_than_it_may() -> None:
    done = threading.Event()
    thread = threading.Thread(target=busy, args=(done, list[int]()))
    thread.start()
    begun = time.monotonic()
    let_threads_rest(0.3)
    assert 0.3 <= time.monotonic() - begun < 30
    assert not done.is_set()
    done.set()
    thread.join()


def test_it_rests_where_nobody_says_what_threads_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "_THREADS", tmp_path / "none")
    begun = time.monotonic()
    let_threads_rest(60.0)
    assert 0.1 <= time.monotonic() - begun < 30
