"""The worker's loop: claim, draw, finish. A second thread keeps the lease while the first one is in a long step."""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Final

from licht.core.errors import InvalidRequest, LeaseLost, LichtError, NotAvailable, OutOfMemory, Refused
from licht.core.request import ImageRequest, Progress
from licht.core.sizes import Size
from licht.service.queue.previews import PreviewRow, Previews
from licht.service.queue.records import Claim, Outcome, State
from licht.service.queue.register import About, Register
from licht.service.queue.store import JobStore
from licht.service.queue.wake import Waker
from licht.service.storage import Storage
from licht.service.telemetry import Telemetry, Value
from licht.service.worker.drawing import Drawer, Drawn, Manner, PreviewDrawn
from licht.service.worker.looking import Looker
from licht.service.worker.measure import StageClock, device_bytes, resident_bytes
from licht.service.worker.tasks import payload_of, request_of

_LOG: Final = logging.getLogger(__name__)
_MEDIA_TYPES: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_STOPPING_LOOK_S: Final = 0.1
_STALLED: Final = 75
"""Exit code of a worker that ended itself because its engine hung."""
# How the stages share the bar that clients see; drawing takes nearly all of the time.
_STAGES: Final = {
    "upsample": (0.0, 0.01),
    "encode_prompt": (0.01, 0.05),
    "encode_references": (0.05, 0.1),
    "encode_start": (0.05, 0.1),
    "cache_references": (0.1, 0.12),
    "denoise": (0.12, 0.92),
    "decode": (0.92, 0.99),
    "rank": (0.92, 0.99),
}
_WARM: Final = ImageRequest("a red sphere", (0,), size=Size(64, 64), steps=1)


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Durations in seconds. `look_s`: at most so often is it told how far a picture is; those who look cost time too."""

    heartbeat_s: float = 3.0
    stall_s: float = 600.0
    drain_s: float = 30.0
    idle_s: float = 1.0
    look_s: float = 0.25


class _Cancelled(Exception):
    """The caller does not want the picture any more."""


class _HandBack(Exception):
    """The worker has to stop before the picture is finished."""


def new_name() -> str:
    """A name that no other worker has."""
    return f"worker_{uuid.uuid4().hex[:12]}"


class Worker:
    """One worker; `run` returns when `stop` was called and the job in hand is finished or handed back."""

    def __init__(
        self,
        store: JobStore,
        storage: Storage,
        drawer: Drawer,
        limits: WorkerLimits | None = None,
        worker_id: str | None = None,
        on_stall: Callable[[], None] = lambda: os._exit(_STALLED),
        on_overdue: Callable[[], None] = lambda: None,
        telemetry: Telemetry | None = None,
        looker: Looker | None = None,
    ) -> None:
        """Work on the jobs of `store` with `drawer`, and beside it on what the `looker` is asked.

        `on_stall` must not return to a hung engine. `on_overdue` is called when a step outlasts the draining and its
        job has been given back: a process of its own ends itself there.
        """
        self.id = worker_id or new_name()
        self._store = store
        self._storage = storage
        self._drawer = drawer
        self._limits = limits or WorkerLimits()
        self._on_stall = on_stall
        self._on_overdue = on_overdue
        self._telemetry = telemetry or Telemetry()
        self._looker = looker
        self._register = Register(store.database)
        self._previews = Previews(store.database)
        self._stopping = threading.Event()
        self._drain_until = float("inf")
        self._hand: _Hand | None = None

    def stop(self) -> None:
        """Take no more jobs; the one in hand may take as long as draining allows. For any thread."""
        self._drain_until = time.monotonic() + self._limits.drain_s
        self._stopping.set()

    def run(self) -> None:
        """Draw a first picture, then one job after another."""
        self._register.enter(self.id, self._drawer.name, self._drawer.licence)
        heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        heart.start()
        try:
            self._hand = _Hand(None)
            about = self._warm_up(self._hand)
            self._hand = None
            self._register.ready(self.id, about)
            if self._looker is not None:
                # a daemon: whatever it looks at, it must not keep the process from ending
                threading.Thread(target=self._looker.run, args=(self._stopping,), name="looks", daemon=True).start()
            _LOG.info("ready", extra={"worker": self.id, "model": self._drawer.name})
            while not self._stopping.is_set():
                try:
                    self._work()
                except NotAvailable as error:
                    _LOG.warning("will try again", extra={"worker": self.id, "reason": error.message})
                    self._stopping.wait(self._limits.idle_s)
        finally:
            self._stopping.set()
            heart.join()
            with suppress(NotAvailable):
                self._register.leave(self.id)

    def _warm_up(self, hand: "_Hand") -> About:
        """Draw a first small picture, which loads the weights; then time one step and two of the default size."""
        about = self._drawer.about
        usual = Size(about.width, about.height)
        self._draw_for_nobody(hand, _WARM)
        one_s, two_s = (
            self._draw_for_nobody(hand, replace(_WARM, size=usual, steps=min(steps, about.default_steps)))
            for steps in (1, 2)
        )
        step_s = max(two_s - one_s, 0.0)
        return replace(about, fixed_s=max(one_s - step_s, 0.0), step_s=step_s)

    def _draw_for_nobody(self, hand: "_Hand", request: ImageRequest) -> float:
        """Seconds that it took."""
        started = time.perf_counter()
        for _event in self._drawer.draw(request, Manner()):
            hand.moved()
        return time.perf_counter() - started

    def _work(self) -> None:
        """One job after another, until it is time to stop. Raises `NotAvailable` when the database is away."""
        with Waker(self._store.database) as waker:
            while not self._stopping.is_set():
                if not self.work_once():
                    self._store.leases.reap()
                    waker.wait(self._limits.idle_s)

    def work_once(self) -> bool:
        """Take one job and see it through; False if there was none."""
        claim = self._store.leases.claim(self.id)
        if claim is None:
            return False
        self._hand = _Hand(claim)
        told: dict[str, Value] = {
            "licht.job.id": claim.job_id,
            "licht.job.attempt": claim.attempt,
            "licht.route": claim.route,
        }
        try:
            with self._telemetry.span("draw", "consumer", claim.traceparent, told) as span:
                span.set("gen_ai.request.model", self._drawer.name)
                span.set("licht.queue_s", claim.claimed_at - claim.created_at)
                self._see_through(claim, self._hand)
                for stage, (start_s, end_s) in self._hand.clock.spans.items():
                    span.stage(stage, start_s, end_s)
        except LeaseLost as error:
            _LOG.warning("lease lost", extra={"job": claim.job_id, "reason": error.message})
        finally:
            self._hand = None
        return True

    def _see_through(self, claim: Claim, hand: "_Hand") -> None:
        leases = self._store.leases
        try:
            outcome = self._draw(claim, hand)
        except _Cancelled:
            outcome = Outcome(State.CANCELLED)
        except _HandBack:
            leases.hand_back(claim)
            _LOG.info("handed back", extra={"job": claim.job_id})
            return
        except Refused as error:
            code = "content_moderated" if hand.started else "request_moderated"
            outcome = Outcome(State.MODERATED, error_code=code, error=error.message)
        except InvalidRequest as error:
            outcome = Outcome(State.FAILED, error_code=error.code, error=error.message)
        except LeaseLost:
            raise
        except (NotAvailable, OutOfMemory) as error:
            _LOG.warning("attempt failed", extra={"job": claim.job_id, "code": error.code, "reason": error.message})
            leases.fail_attempt(claim, error.code, error.message)
            return
        except LichtError as error:
            _LOG.exception("attempt failed", extra={"job": claim.job_id})
            leases.fail_attempt(claim, error.code, error.message)
            return
        except Exception:  # noqa: BLE001 - a defect in the engine must not end the worker; its text is for the log only
            _LOG.exception("attempt failed", extra={"job": claim.job_id})
            leases.fail_attempt(claim, "internal_error", "the picture could not be drawn")
            return
        self._finish(claim, outcome)
        _LOG.info("finished", extra={"job": claim.job_id, "state": outcome.state.value})

    def _finish(self, claim: Claim, outcome: Outcome) -> None:
        """Write the outcome; while the database is away, the drawn picture is worth some patience."""
        until = time.monotonic() + self._store.limits.lease_s
        while True:
            try:
                self._store.leases.finish(claim, outcome)
                if claim.task.previews:
                    self._previews.drop(claim.job_id)
            except NotAvailable:
                if time.monotonic() > until:
                    raise
                time.sleep(self._limits.look_s)
            else:
                return

    def _draw(self, claim: Claim, hand: "_Hand") -> Outcome:
        request = request_of(claim.task, self._storage, self._drawer.about.default_steps)
        task = claim.task
        manner = Manner(
            task.file_format,
            task.safety_tolerance,
            task.finish,
            task.upsample,
            task.file_quality,
            task.policy,
            payload_of(claim.job_id),
        )
        events = self._drawer.draw(request, manner)
        with closing(events):
            for event in events:
                hand.moved()
                if isinstance(event, Drawn):
                    return self._ready(claim, request, event, hand.clock.seconds("release"))
                if isinstance(event, PreviewDrawn):
                    hand.clock.note("previews")
                    self._show(claim, event)
                    continue
                hand.clock.note(event.stage)
                hand.started = True
                self._look(claim, hand, event)
        raise LichtError("the engine ended without a picture")

    def _look(self, claim: Claim, hand: "_Hand", event: Progress) -> None:
        """Between two steps: tell where the work stands, and whether it is still wanted."""
        if hand.lost:
            raise LeaseLost("the heartbeat found the job in other hands")
        if self._stopping.is_set() and time.monotonic() > self._drain_until:
            raise _HandBack
        now = time.monotonic()
        if now - hand.told < self._limits.look_s:
            if not self._store.leases.wanted(claim):
                raise _Cancelled
            return
        hand.told = now
        if self._store.leases.keep(claim, event.stage, _fraction(event)):
            raise _Cancelled

    def _show(self, claim: Claim, event: PreviewDrawn) -> None:
        """Show how far the picture is. That nobody can see it for a moment is no reason to stop drawing."""
        row = PreviewRow(event.step, event.total, event.width, event.height, "image/png", event.data)
        with suppress(NotAvailable):
            self._previews.put(claim.job_id, row)

    def _ready(self, claim: Claim, request: ImageRequest, drawn: Drawn, stage_s: dict[str, float]) -> Outcome:
        digest = self._storage.put(drawn.data)
        # of several candidates the chosen one's; the first one's is as the caller knows it, beyond 63 bits too
        seed = claim.task.seed if drawn.seed == request.seeds[0] else drawn.seed
        result = {
            "blob": digest,
            "media_type": _MEDIA_TYPES[drawn.file_format],
            "bytes": len(drawn.data),
            "width": drawn.width,
            "height": drawn.height,
            "seed": seed,
            "steps": drawn.steps,
            "guidance": drawn.guidance,
            "model": self._drawer.name,
            "warnings": list(dict.fromkeys((*claim.task.notes, *drawn.warnings))),
            "prompt": drawn.prompt,
            "prompt_upsampled": drawn.prompt_upsampled,
            "candidates": drawn.candidates,
            "ranker": drawn.ranker,
        }
        return Outcome(
            State.READY, result=result, blobs=(digest,), steps=drawn.steps, stage_s=stage_s, caches=drawn.caches
        )

    def _beat(self) -> None:
        """Keep worker and lease alive; end the process if the engine hangs, so that somebody else gets the job."""
        while not self._stopping.wait(self._limits.heartbeat_s) or self._hand is not None:
            hand = self._hand
            try:
                self._register.beat(self.id, resident_bytes(), device_bytes())
                if hand is not None and hand.claim is not None and not hand.lost:
                    self._store.leases.keep(hand.claim)
            except LeaseLost:
                if hand is not None:
                    hand.lost = self._hand is hand
            except NotAvailable as error:
                _LOG.warning("no heartbeat", extra={"worker": self.id, "reason": error.message})
            if hand is not None and time.monotonic() - hand.last_moved > self._limits.stall_s:
                _LOG.error("the engine hangs; ending this worker", extra={"worker": self.id})
                self._on_stall()
            if self._looker is not None and self._looker.busy_s > self._limits.stall_s:
                _LOG.error("looking at a picture hangs; ending this worker", extra={"worker": self.id})
                self._on_stall()
            if self._stopping.is_set():
                self._give_up_if_overdue(hand)
                time.sleep(min(self._limits.heartbeat_s, _STOPPING_LOOK_S))

    def _give_up_if_overdue(self, hand: "_Hand | None") -> None:
        """Hand the job back from here where one step takes longer than the draining may, and end the process."""
        overdue = time.monotonic() - self._drain_until > 2 * _STOPPING_LOOK_S
        if hand is None or not overdue:
            return
        with suppress(LichtError):
            if hand.claim is not None and not hand.lost:
                self._store.leases.hand_back(hand.claim)
                _LOG.info("handed back in the middle of a step", extra={"job": hand.claim.job_id})
            self._register.leave(self.id)
        self._on_overdue()


class _Hand:
    """The job in hand, shared between the two threads. `claim` is None while warming up."""

    def __init__(self, claim: Claim | None) -> None:
        self.claim = claim
        self.started = False
        self.lost = False
        self.told = 0.0
        self.last_moved = time.monotonic()
        self.clock = StageClock()

    def moved(self) -> None:
        self.last_moved = time.monotonic()


def _fraction(event: Progress) -> float:
    start, end = _STAGES[event.stage]
    return start + (end - start) * event.done / max(event.total, 1)
