"""Every table. Times are seconds since 1970 as floats, money is thousandths of a credit, documents are JSON text.

A column called `digest` names a stored file, in every table: a file goes when no such column names it any more, see
`licht.service.retention`.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

STATES: Final = ("queued", "running", "ready", "failed", "moderated", "cancelled")
ACTIVE: Final = ("queued", "running")

_NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
METADATA: Final = MetaData(naming_convention=_NAMES)

KEYS: Final = Table(
    "keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("prefix", Text, nullable=False, unique=True),
    Column("hash", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    # NULL: no limit of credits; the service's own limit of active jobs; priority 0
    Column("credits_milli", BigInteger),
    Column("active_limit", Integer),
    Column("priority", Integer, nullable=False),
    # where this key's last job ends in the fair order of work, see licht.service.queue.submit
    Column("fair_finish", Double, nullable=False),
    Column("rotated_to", Text),
)

JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("key_id", Text, ForeignKey("keys.id"), nullable=False),
    Column("route", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("available_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("priority", Integer, nullable=False),
    Column("work", Double, nullable=False),
    Column("fair_start", Double, nullable=False),
    Column("rank", Double, nullable=False),
    # the lease; `attempt` is the fencing token, it grows with every claim
    Column("attempt", Integer, nullable=False),
    Column("owner", Text),
    Column("lease_until", Double),
    Column("failures", Integer, nullable=False),
    Column("deaths", Integer, nullable=False),
    Column("dead_letter", Text),
    Column("cancel_requested", Boolean, nullable=False),
    Column("stage", Text, nullable=False),
    Column("progress", Double, nullable=False),
    Column("result", Text),
    Column("error_code", Text),
    Column("error", Text),
    Column("cost_milli", BigInteger, nullable=False),
    Column("input_px", BigInteger, nullable=False),
    Column("output_px", BigInteger, nullable=False),
    Column("webhook_url", Text),
    Column("webhook_secret", Text),
    Column("base_url", Text, nullable=False),
    # a caller waits for the answer and wants nothing once it is gone: cancelled when this time has passed
    Column("wanted_until", Double),
    # W3C trace context of the request that made the job
    Column("traceparent", Text),
    CheckConstraint(f"state IN {STATES}", name="state"),
    CheckConstraint("dead_letter IS NULL OR (dead_letter IN ('attempts', 'poison') AND state = 'failed')", name="dead"),
    CheckConstraint("(state = 'running') = (owner IS NOT NULL AND lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("(state IN ('queued', 'running')) = (finished_at IS NULL)", name="finished"),
    Index("ix_jobs_claim", "state", "rank", "created_at"),
    Index("ix_jobs_fair", "state", "fair_start"),
    Index("ix_jobs_lease", "state", "lease_until"),
    Index("ix_jobs_key", "key_id", "state", "created_at"),
    Index("ix_jobs_created", "created_at"),
    Index("ix_jobs_wanted", "wanted_until"),
)

IDEMPOTENCY: Final = Table(
    "idempotency",
    METADATA,
    Column("key_id", Text, ForeignKey("keys.id"), primary_key=True),
    Column("token", Text, primary_key=True),
    Column("body_hash", Text, nullable=False),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("response", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

METERING: Final = Table(
    "metering",
    METADATA,
    # one row for every job that has ended, so nothing is charged twice
    Column("job_id", Text, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("day", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("route", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("pictures", Integer, nullable=False),
    Column("input_px", BigInteger, nullable=False),
    Column("output_px", BigInteger, nullable=False),
    Column("cost_milli", BigInteger, nullable=False),
    Column("queue_s", Double, nullable=False),
    Column("run_s", Double, nullable=False),
    Column("steps", Integer, nullable=False),
    Index("ix_metering_day", "day", "key_id"),
)

BLOBS: Final = Table(
    "blobs",
    METADATA,
    # which stored files a job needs: a file goes when the last job that names it goes
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", Text, primary_key=True),
    Index("ix_blobs_digest", "digest"),
)

WEBHOOKS: Final = Table(
    "webhooks",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Double, nullable=False),
    Column("last_status", Text),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("job_id"),
    CheckConstraint("state IN ('pending', 'delivered', 'given_up')", name="state"),
    Index("ix_webhooks_next", "state", "next_at"),
)

WORKERS: Final = Table(
    "workers",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("licence", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
    Column("ready_at", Double),
    Column("memory_bytes", BigInteger),
    Column("device_memory_bytes", BigInteger),
    # what the weights are like, see `licht.service.queue.register.About`
    Column("about", Text),
)

TALLIES: Final = Table(
    "tallies",
    METADATA,
    # sums over all jobs that have ever ended, written where they end: counters that survive every restart and purge
    Column("name", Text, primary_key=True),
    Column("labels", Text, primary_key=True),
    Column("value", Double, nullable=False),
)

PREVIEWS: Final = Table(
    "previews",
    METADATA,
    # the latest picture in the making of a running job; small, and gone with the run
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

UPLOADS: Final = Table(
    "uploads",
    METADATA,
    # pictures that a key keeps as references, by the digest of their pixels
    Column("key_id", Text, ForeignKey("keys.id"), primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_uploads_digest", "digest"),
)

REMOVED_UPLOADS: Final = Table(
    "removed_uploads",
    METADATA,
    # references that were deleted while jobs used them, until those have ended; not called `digest`: it keeps no file
    Column("key_id", Text, ForeignKey("keys.id"), primary_key=True),
    Column("picture", Text, primary_key=True),
    Column("removed_at", Double, nullable=False),
)

FAVOURITES: Final = Table(
    "favourites",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("at", Double, nullable=False),
)

SERIES: Final = Table(
    "series",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("key_id", Text, ForeignKey("keys.id"), nullable=False),
    Column("title", Text, nullable=False),
    Column("story", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_series_key", "key_id", "created_at"),
)

FRAMES: Final = Table(
    "frames",
    METADATA,
    Column("series_id", Text, ForeignKey("series.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("prompt", Text, nullable=False),
    # the latest drawing; none once that job was deleted
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="SET NULL")),
    Index("ix_frames_job", "job_id"),
)

BATTLES: Final = Table(
    "battles",
    METADATA,
    # two pictures of one prompt; the jobs may be deleted, the vote stays
    Column("id", Text, primary_key=True),
    Column("key_id", Text, ForeignKey("keys.id"), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("job_a", Text, nullable=False),
    Column("job_b", Text, nullable=False),
    Column("name_a", Text, nullable=False),
    Column("name_b", Text, nullable=False),
    # what A got: 1, 0.5 or 0; NULL until the vote
    Column("score", Double),
    Column("voted_at", Double),
    CheckConstraint("score IS NULL OR score IN (0, 0.5, 1)", name="score"),
    CheckConstraint("(score IS NULL) = (voted_at IS NULL)", name="voted"),
    Index("ix_battles_voted", "voted_at"),
)

LOOKS: Final = Table(
    "looks",
    METADATA,
    # pictures that a worker is to look at, as long as somebody waits for what it says
    Column("id", Text, primary_key=True),
    # NULL: whoever asked has no key
    Column("key_id", Text, ForeignKey("keys.id")),
    Column("digest", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("owner", Text),
    Column("attempt", Integer, nullable=False),
    Column("answer", Text),
    CheckConstraint("state IN ('queued', 'running', 'ended')", name="state"),
    CheckConstraint("(state = 'running') = (owner IS NOT NULL)", name="owner"),
    CheckConstraint("(state = 'ended') = (answer IS NOT NULL)", name="answer"),
    Index("ix_looks_next", "state", "created_at"),
)
