import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from licht.service.supervise import Role, Supervisor
from tests.service.conftest import PATIENCE_S

COUNT = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(60)"


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(path: Path, count: int) -> int:
    end = time.monotonic() + PATIENCE_S
    while len(pids(path)) < count:
        assert time.monotonic() < end, "the process did not start"
        time.sleep(0.02)
    return pids(path)[-1]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_process_is_started_again_and_all_end_together(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    ended: list[tuple[str, int]] = []
    roles = [Role(path.name, [sys.executable, "-c", COUNT, str(path)]) for path in (first, second)]
    supervisor = Supervisor(roles, PATIENCE_S, lambda role, code: ended.append((role.name, code)))
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(supervisor.run()))
    thread.start()
    pid, other = until(first, 1), until(second, 1)
    os.kill(pid, signal.SIGKILL)
    assert until(first, 2) != pid
    assert ended == [("first", -signal.SIGKILL)]
    supervisor.stop()
    thread.join(PATIENCE_S)
    assert codes == [0]
    assert not any(alive(each) for each in [*pids(first), other])
    assert len(pids(second)) == 1


LAST = """
import signal, sys
written = open(sys.argv[1], "a", buffering=1)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: (written.write(f"{int(number)}\\n"), number == signal.SIGINT and sys.exit(0)))
written.write("0\\n")
while True:
    signal.pause()
"""
OTHER = """
import os, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
while not asked or str(int(signal.SIGTERM)) not in open(sys.argv[2]).read().split():
    time.sleep(0.02)
"""
"""Ends when it is asked to, but not before the last has heard its first signal: two that wait come in another order."""


def test_what_ends_last_is_asked_again_when_the_others_are_gone(tmp_path: Path) -> None:
    last, other = tmp_path / "last", tmp_path / "other"
    roles = [
        Role("last", [sys.executable, "-c", LAST, str(last)], ends_last=True),
        Role("other", [sys.executable, "-c", OTHER, str(other), str(last)]),
    ]
    supervisor = Supervisor(roles, PATIENCE_S)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    until(last, 1)
    until(other, 1)
    supervisor.stop()
    thread.join(PATIENCE_S)
    assert pids(last) == [0, signal.SIGTERM, signal.SIGINT]


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "deaf"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + COUNT
    supervisor = Supervisor([Role("deaf", [sys.executable, "-c", deaf, str(path)])], 0.3)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    pid = until(path, 1)
    supervisor.stop()
    thread.join(PATIENCE_S)
    assert not alive(pid)


def test_a_process_that_refuses_its_settings_is_not_started_again(tmp_path: Path) -> None:
    supervisor = Supervisor([Role("bad", [sys.executable, "-c", "import sys; sys.exit(2)"])], 1)
    assert supervisor.run() == 2


WAITING = """
import os, signal, threading, time
from licht.service.supervise import end_on_signals
ended = threading.Event()
end_on_signals(ended.set)
# as `ended.wait` does for a moment whenever it begins and ends
with ended._cond:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
assert ended.wait(30)
"""


def test_a_signal_in_the_middle_of_waiting_for_it_hangs_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WAITING], timeout=PATIENCE_S, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
