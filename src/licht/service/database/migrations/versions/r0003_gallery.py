"""Pictures in the making, kept references, favourites, storyboards, and what a worker's weights are like."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.add_column("workers", sa.Column("about", sa.Text(), nullable=True))
    _previews()
    _uploads()
    _favourites()
    _series()
    _frames()


def _previews() -> None:
    op.create_table(
        "previews",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_previews")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_previews_job_id"), ondelete="CASCADE"),
    )


def _uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "digest", name=op.f("pk_uploads")),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_uploads_key_id")),
    )
    op.create_index("ix_uploads_digest", "uploads", ["digest"], unique=False)


def _favourites() -> None:
    op.create_table(
        "favourites",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_favourites")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_favourites_job_id"), ondelete="CASCADE"),
    )


def _series() -> None:
    op.create_table(
        "series",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("story", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_series_key_id")),
    )
    op.create_index("ix_series_key", "series", ["key_id", "created_at"], unique=False)


def _frames() -> None:
    op.create_table(
        "frames",
        sa.Column("series_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("series_id", "number", name=op.f("pk_frames")),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_frames_series_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_frames_job_id"), ondelete="SET NULL"),
    )
    op.create_index("ix_frames_job", "frames", ["job_id"], unique=False)
