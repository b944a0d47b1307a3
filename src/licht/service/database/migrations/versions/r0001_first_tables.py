"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table of version 0.1."""
    _keys()
    _metering()
    _workers()
    _jobs()
    _blobs()
    _idempotency()
    _webhooks()


def _keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("credits_milli", sa.BigInteger(), nullable=True),
        sa.Column("active_limit", sa.Integer(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("fair_finish", sa.Double(), nullable=False),
        sa.Column("rotated_to", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_keys_prefix")),
    )


def _metering() -> None:
    op.create_table(
        "metering",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("pictures", sa.Integer(), nullable=False),
        sa.Column("input_px", sa.BigInteger(), nullable=False),
        sa.Column("output_px", sa.BigInteger(), nullable=False),
        sa.Column("cost_milli", sa.BigInteger(), nullable=False),
        sa.Column("queue_s", sa.Double(), nullable=False),
        sa.Column("run_s", sa.Double(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_metering")),
    )
    op.create_index("ix_metering_day", "metering", ["day", "key_id"], unique=False)


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("licence", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
        sa.Column("ready_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("available_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("work", sa.Double(), nullable=False),
        sa.Column("fair_start", sa.Double(), nullable=False),
        sa.Column("rank", sa.Double(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("dead_letter", sa.Text(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("cost_milli", sa.BigInteger(), nullable=False),
        sa.Column("input_px", sa.BigInteger(), nullable=False),
        sa.Column("output_px", sa.BigInteger(), nullable=False),
        sa.Column("webhook_url", sa.Text(), nullable=True),
        sa.Column("webhook_secret", sa.Text(), nullable=True),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(state = 'running') = (owner IS NOT NULL AND lease_until IS NOT NULL)", name=op.f("ck_jobs_lease")
        ),
        sa.CheckConstraint("(state IN ('queued', 'running')) = (finished_at IS NULL)", name=op.f("ck_jobs_finished")),
        sa.CheckConstraint(
            "dead_letter IS NULL OR (dead_letter IN ('attempts', 'poison') AND state = 'failed')",
            name=op.f("ck_jobs_dead"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'ready', 'failed', 'moderated', 'cancelled')", name=op.f("ck_jobs_state")
        ),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_jobs_key_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_claim", "jobs", ["state", "rank", "created_at"], unique=False)
    op.create_index("ix_jobs_created", "jobs", ["created_at"], unique=False)
    op.create_index("ix_jobs_fair", "jobs", ["state", "fair_start"], unique=False)
    op.create_index("ix_jobs_key", "jobs", ["key_id", "state", "created_at"], unique=False)
    op.create_index("ix_jobs_lease", "jobs", ["state", "lease_until"], unique=False)


def _blobs() -> None:
    op.create_table(
        "blobs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_blobs_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "digest", name=op.f("pk_blobs")),
    )
    op.create_index("ix_blobs_digest", "blobs", ["digest"], unique=False)


def _idempotency() -> None:
    op.create_table(
        "idempotency",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("response", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_idempotency_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_idempotency_key_id")),
        sa.PrimaryKeyConstraint("key_id", "token", name=op.f("pk_idempotency")),
    )


def _webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("last_status", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'given_up')", name=op.f("ck_webhooks_state")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_webhooks_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
        sa.UniqueConstraint("job_id", name=op.f("uq_webhooks_job_id")),
    )
    op.create_index("ix_webhooks_next", "webhooks", ["state", "next_at"], unique=False)
