"""Pictures that a worker is to look at."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "looks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('queued', 'running', 'ended')", name=op.f("ck_looks_state")),
        sa.CheckConstraint("(state = 'running') = (owner IS NOT NULL)", name=op.f("ck_looks_owner")),
        sa.CheckConstraint("(state = 'ended') = (answer IS NOT NULL)", name=op.f("ck_looks_answer")),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_looks_key_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_looks")),
    )
    op.create_index("ix_looks_next", "looks", ["state", "created_at"], unique=False)
