"""Tallies for the metrics, the memory of workers, trace contexts, and callers who wait."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them. Tallies begin at zero: a counter may, and Prometheus takes it for a restart."""
    op.add_column("jobs", sa.Column("wanted_until", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("traceparent", sa.Text(), nullable=True))
    op.create_index("ix_jobs_wanted", "jobs", ["wanted_until"], unique=False)
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger(), nullable=True))
    op.add_column("workers", sa.Column("device_memory_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "tallies",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels", name=op.f("pk_tallies")),
    )
