"""Workers as Ray actors: the same loop as in a process of `licht serve`, on whichever machine of a cluster has room.

The queue stays where it is, in PostgreSQL, with its leases and fencing tokens; Ray only starts the processes and gives
each of them a GPU. What an actor takes along when it dies goes back to the queue as with any other worker.
"""

import importlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from licht.core.errors import InvalidSettings, NotAvailable

if TYPE_CHECKING:
    from types import ModuleType

_LOG: Final = logging.getLogger(__name__)
_LOOK_S: Final = 1.0
_THREADS: Final = 2
"""One works, the other one can tell it to stop."""


class Runs(Protocol):
    """A worker, opened: `run` returns after `stop`."""

    def run(self) -> None:
        """Work."""
        ...

    def stop(self) -> None:
        """End when the job in hand is finished or handed back."""
        ...


Open = Callable[[Mapping[str, Any], str], Runs]
"""(settings as plain values, name) -> a worker. It is called in the actor, so it has to be a function of a module."""


@dataclass(frozen=True, slots=True)
class FleetChoice:
    """Which cluster, how many workers, and the GPUs and processors that each of them takes."""

    address: str
    count: int
    gpus: float
    cpus: float = 1.0


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    actor: Any
    ending: Any = field(repr=False)


class Fleet:
    """Keeps so many actors at work until it is stopped; one that ends is started again."""

    def __init__(
        self, choice: FleetChoice, open_worker: Open, settings: Mapping[str, Any], on_end: Callable[[str], None]
    ) -> None:
        """Join the cluster. `on_end` hears the name of every actor that ended by itself.

        Raises `InvalidSettings` where Ray is not installed, `NotAvailable` where no cluster answers.
        """
        self._ray = _ray()
        self._choice = choice
        self._settings = dict(settings)
        self._on_end = on_end
        self._stopping = threading.Event()
        self._started = 0
        try:
            self._ray.init(address=choice.address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise NotAvailable(
                f"no Ray cluster answers at {choice.address!r}; start one with `ray start --head`, or check the address",
                field="address",
            ) from error
        self._actor = self._ray.remote(num_gpus=choice.gpus, num_cpus=choice.cpus, max_concurrency=_THREADS)(_Actor)
        self._open = open_worker

    def stop(self) -> None:
        """Let all of them finish; for any thread."""
        self._stopping.set()

    def run(self, prefix: str, stop_s: float) -> None:
        """Keep them at work until `stop`; those that have not ended `stop_s` later are killed."""
        members = [self._start(prefix) for _ in range(self._choice.count)]
        try:
            while not self._stopping.wait(_LOOK_S):
                members = [self._looked_after(member, prefix) for member in members]
        finally:
            for member in members:
                member.actor.stop.remote()
            ended, late = self._ray.wait([each.ending for each in members], num_returns=len(members), timeout=stop_s)
            _LOG.info("stopped", extra={"ended": len(ended), "late": len(late)})
            for member in members:
                self._ray.kill(member.actor)
                self._on_end(member.name)
            self._ray.shutdown()

    def _start(self, prefix: str) -> _Member:
        self._started += 1
        name = f"{prefix}-{self._started}"
        actor = self._actor.remote(self._open, self._settings, name)
        _LOG.info("started", extra={"worker": name})
        return _Member(name, actor, actor.run.remote())

    def _looked_after(self, member: _Member, prefix: str) -> _Member:
        ended, _ = self._ray.wait([member.ending], timeout=0)
        if not ended:
            return member
        try:
            self._ray.get(ended[0])
        except self._ray.exceptions.RayError as error:
            _LOG.warning("ended; starting another", extra={"worker": member.name, "reason": type(error).__name__})
        self._ray.kill(member.actor)
        self._on_end(member.name)
        return self._start(prefix)


class _Actor:
    """What runs in the cluster. The weights are opened in `run`, so that one who has to wait can be told to stop."""

    def __init__(self, open_worker: Open, settings: Mapping[str, Any], name: str) -> None:
        self._open, self._settings, self._name = open_worker, settings, name
        self._worker: Runs | None = None
        self._unwanted = False

    def run(self) -> None:
        """Work until `stop`."""
        self._worker = self._open(self._settings, self._name)
        if not self._unwanted:
            self._worker.run()

    def stop(self) -> None:
        """End soon."""
        self._unwanted = True
        if self._worker is not None:
            self._worker.stop()


def _ray() -> "ModuleType":
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise InvalidSettings("Ray is not installed; install lichtung[ray], or start workers without it") from error
