"""Keeps processes running: each is started again when it ends, at growing intervals, and all stop together."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Final

from licht.core.errors import LichtError

_LOG: Final = logging.getLogger(__name__)
_POLL_S: Final = 0.1
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_REFUSED: Final = 2
_LONGEST_PAUSE_AFTER_KILL_S: Final = 0.4
"""What was killed has not failed by itself, and does best to be back soon."""
_STEADY_S: Final = 30.0
"""After a run of this length a process cannot have refused its settings, and the pauses begin anew."""


@dataclass(frozen=True, slots=True)
class Role:
    """A process to keep running: its name, its command, and the open files that it takes over.

    One that `ends_last` is asked with all others, and once more, with SIGINT, when they have ended.
    """

    name: str
    command: Sequence[str]
    pass_fds: tuple[int, ...] = ()
    ends_last: bool = False


class _Kept:
    def __init__(self, role: Role) -> None:
        self.role = role
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_at = 0.0
        self.pause_s = _FIRST_PAUSE_S


class Supervisor:
    """Runs roles until `stop`, or until a role refuses its settings (exit code 2), which no restart repairs."""

    def __init__(
        self, roles: Sequence[Role], stop_s: float, on_end: Callable[[Role, int], None] = lambda _role, _code: None
    ) -> None:
        """`on_end` hears of every process that ended by itself. After `stop_s` of asking, processes are killed."""
        self._kept = [_Kept(role) for role in roles]
        self._stop_s = stop_s
        self._on_end = on_end
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask all processes to end; from any thread, but not in a signal handler, see `end_on_signals`."""
        self._stopping.set()

    def start(self) -> None:
        """Start everything now; `run` looks after it."""
        for kept in self._kept:
            self._look_after(kept)

    def run(self) -> int:
        """Keep everything running until it is stopped; returns the exit code: 0, or 2 where a role refused to run."""
        code = 0
        try:
            while not self._stopping.is_set():
                for kept in self._kept:
                    refused = self._look_after(kept)
                    if refused:
                        code = 2
                        self._stopping.set()
                self._stopping.wait(_POLL_S)
        finally:
            self._end_all()
        return code

    def _look_after(self, kept: _Kept) -> bool:
        """Start what is not running; True if it has refused to run."""
        now = time.monotonic()
        if kept.process is None:
            if now >= kept.start_at:
                self._start(kept)
            return False
        code = kept.process.poll()
        if code is None:
            return False
        ran_s = now - kept.started_at
        _close(kept.process)
        kept.process = None
        longest_s = _LONGEST_PAUSE_AFTER_KILL_S if code < 0 else _LONGEST_PAUSE_S
        kept.pause_s = _FIRST_PAUSE_S if ran_s > _STEADY_S else min(kept.pause_s * 2, longest_s)
        kept.start_at = now + kept.pause_s
        if code == _REFUSED and ran_s < _STEADY_S:
            return True
        _LOG.warning("ended; starting it again", extra={"role": kept.role.name, "exit_code": code})
        self._tell(kept.role, code)
        return False

    @staticmethod
    def _start(kept: _Kept) -> None:
        kept.started_at = time.monotonic()
        # a session of its own: Ctrl-C in a terminal reaches the supervisor alone, which then asks the others;
        # the pipe tells the process when the supervisor is gone, see `end_with_supervisor`
        kept.process = subprocess.Popen(  # noqa: S603 - our own command line
            list(kept.role.command), stdin=subprocess.PIPE, start_new_session=True, pass_fds=kept.role.pass_fds
        )
        _LOG.info("started", extra={"role": kept.role.name, "pid": kept.process.pid})

    def _end_all(self) -> None:
        until = time.monotonic() + self._stop_s
        running = [kept for kept in self._kept if kept.process is not None]
        for kept in running:
            _ask(kept, signal.SIGTERM)
        for last in (False, True):
            for kept in running:
                if kept.role.ends_last is last:
                    if last:
                        # another signal: two of a kind may arrive as one
                        _ask(kept, signal.SIGINT)
                    self._await(kept, until)

    def _await(self, kept: _Kept, until: float) -> None:
        """Wait for the end of a process; kill it where that does not come."""
        process = kept.process
        if process is None:
            return
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            self._tell(kept.role, process.wait())
        _close(process)
        kept.process = None

    def _tell(self, role: Role, code: int) -> None:
        try:
            self._on_end(role, code)
        except LichtError as error:  # the leases of its jobs will run out by themselves
            _LOG.warning("not tidied up", extra={"role": role.name, "reason": error.message})


def _ask(kept: _Kept, how: signal.Signals) -> None:
    if kept.process is not None:
        kept.process.send_signal(how)


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def end_with_supervisor(end: Callable[[], None] = _end) -> None:
    """Called in a supervised process: when the supervisor dies, however it dies, `end` as if it had asked."""

    def watch() -> None:
        # not through sys.stdin: its lock, held by this thread, would stop the interpreter from ending
        os.read(0, 1)
        end()

    threading.Thread(target=watch, name="supervisor", daemon=True).start()


def end_on_signals(end: Callable[[], None]) -> None:
    """Call `end` in a thread of its own at each SIGTERM and SIGINT from now on; for the main thread to call.

    Not in the handler itself, which interrupts the main thread wherever that is: if it is waiting on the event that
    `end` sets, and holds its lock for that moment, both would wait for ever.
    """
    told, telling = os.pipe()

    def handle(_number: int, _frame: FrameType | None) -> None:
        os.write(telling, b".")

    def watch() -> None:
        while os.read(told, 1):
            end()

    threading.Thread(target=watch, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
