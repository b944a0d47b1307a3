"""What goes into the queue and what comes out of it, as plain frozen data."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self


class State(StrEnum):
    """Where a job stands. The last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"
    MODERATED = "moderated"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self not in (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Input:
    """One stored picture: the digest of its pixels in the storage, what the caller called it, and how it counts."""

    digest: str
    name: str
    role: str | None = None
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be drawn: all that a worker needs to know. Sizes in pixels; `file_format` is PNG, JPEG or WEBP."""

    prompt: str
    seed: int
    width: int
    height: int
    steps: int | None = None
    guidance: float | None = None
    inputs: tuple[Input, ...] = ()
    file_format: str = "JPEG"
    file_quality: int | None = None
    """Of JPEG and WebP, 1 to 100; None is the usual one."""
    safety_tolerance: int = 2
    policy: str | None = None
    """How much the door does for this caller: off, default, strict; None is the worker's own."""
    native_only: bool = False
    notes: tuple[str, ...] = ()
    """What the caller is to hear about how the request was understood; it goes out with the result's warnings."""
    start: str | None = None
    """Digest of the picture to begin with."""
    start_strength: float | None = None
    mask: str | None = None
    """Digest of a picture that is white where `start` may change."""
    extend: tuple[int, int, int, int] | None = None
    """Pixels to add left, above, right and below."""
    step_factor: float = 1.0
    """Where `steps` is None: so many times the model's own."""
    finish: str = "none"
    candidates: int = 1
    """So many pictures are drawn, and the best of them counts."""
    upsample: bool = False
    """Whether the prompt is to be written out at length first, where that is configured."""
    previews: bool = False
    batch: tuple[str, ...] = ()
    """The jobs that were asked for together with this one, itself included."""

    @property
    def digests(self) -> frozenset[str]:
        """Every stored file that the task needs."""
        return frozenset(
            digest for digest in (*(each.digest for each in self.inputs), self.start, self.mask) if digest is not None
        )

    def to_json(self) -> str:
        """For the row."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From the row."""
        values = json.loads(text)
        for name in ("notes", "batch", "extend"):
            if name in values and values[name] is not None:
                values[name] = tuple(values[name])
        return cls(**{**values, "inputs": tuple(Input(**each) for each in values["inputs"])})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. `result` belongs to READY; `error_code` and `error` to FAILED and MODERATED."""

    state: State
    result: Mapping[str, Any] | None = None
    error_code: str | None = None
    error: str | None = None
    blobs: tuple[str, ...] = ()
    steps: int = 0
    stage_s: Mapping[str, float] = field(default_factory=dict)
    """How long each stage took, for the metrics."""
    caches: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Hits and misses of each of the engine's caches, for the metrics."""

    def __post_init__(self) -> None:
        if not self.state.final:
            raise ValueError(f"{self.state} is no outcome")


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The caller's token, a hash of the body that it stands for, and the response to repeat.

    With `awaits_end` the response is the picture itself: until the job has ended there is nothing to repeat.
    """

    token: str
    body_hash: str
    response: str
    awaits_end: bool = False


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be accepted. `work` is how much of the machine it takes, in megapixel-steps; prices in milli-credits."""

    id: str
    key_id: str
    route: str
    task: Task
    work: float
    cost_milli: int
    input_px: int
    output_px: int
    base_url: str
    webhook_url: str | None = None
    webhook_secret: str | None = None
    idempotency: Idempotency | None = None
    outcome: Outcome | None = None
    """Set where the policy refused the request at the door: the job exists, and is over."""
    wanted_s: float | None = None
    """A caller waits, and the job ends with the call: it is cancelled when nobody says `JobStore.want` for so long."""
    traceparent: str | None = None
    """W3C trace context of the request."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a submitted job; a replay carries the response of the first time."""

    job_id: str
    replayed: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands in its row. Times in seconds since 1970."""

    id: str
    key_id: str
    route: str
    state: State
    task: Task
    created_at: float
    started_at: float | None
    finished_at: float | None
    attempt: int
    failures: int
    deaths: int
    dead_letter: str | None
    cancel_requested: bool
    stage: str
    progress: float
    result: Mapping[str, Any] | None
    error_code: str | None
    error: str | None
    cost_milli: int
    input_px: int
    output_px: int
    webhook_url: str | None
    base_url: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A job in the hands of one worker. `attempt` is the fencing token: an older claim can write nothing."""

    job_id: str
    key_id: str
    route: str
    attempt: int
    owner: str
    task: Task
    created_at: float
    claimed_at: float
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Durations in seconds; see `[queue]` and `[keys]` in the settings."""

    lease_s: float = 15.0
    max_attempts: int = 3
    max_deaths: int = 3
    retry_delay_s: float = 2.0
    priority_work: float = 100.0
    active_limit: int = 24


@dataclass(frozen=True, slots=True)
class Depth:
    """How full the queue is."""

    by_state: Mapping[str, int] = field(default_factory=dict)
    oldest_queued_s: float = 0.0
    dead_letters: int = 0
