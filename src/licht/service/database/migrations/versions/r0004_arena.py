"""Battles of the arena, with their votes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "battles",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("job_a", sa.Text(), nullable=False),
        sa.Column("job_b", sa.Text(), nullable=False),
        sa.Column("name_a", sa.Text(), nullable=False),
        sa.Column("name_b", sa.Text(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("voted_at", sa.Double(), nullable=True),
        sa.CheckConstraint("score IS NULL OR score IN (0, 0.5, 1)", name=op.f("ck_battles_score")),
        sa.CheckConstraint("(score IS NULL) = (voted_at IS NULL)", name=op.f("ck_battles_voted")),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_battles_key_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_battles")),
    )
    op.create_index("ix_battles_voted", "battles", ["voted_at"], unique=False)
