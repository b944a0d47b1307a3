"""References that were deleted while a job still used them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "removed_uploads",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("picture", sa.Text(), nullable=False),
        sa.Column("removed_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_removed_uploads_key_id")),
        sa.PrimaryKeyConstraint("key_id", "picture", name=op.f("pk_removed_uploads")),
    )
