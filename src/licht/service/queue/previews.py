"""Pictures in the making: the latest one of a running job, from its worker to whoever follows the job."""

import base64
from dataclasses import dataclass, field

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from licht.service.database.connect import Database
from licht.service.database.tables import PREVIEWS


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """How a job's picture looked after `step` of `total` steps: a small file, sizes in pixels."""

    step: int
    total: int
    width: int
    height: int
    media_type: str
    data: bytes = field(repr=False)

    @property
    def data_uri(self) -> str:
        """The file as text."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


class Previews:
    """The previews of one database. They are worth no fsync: after a crash the next step brings another."""

    def __init__(self, database: Database) -> None:
        """Work on `database`."""
        self._database = database

    def put(self, job_id: str, row: PreviewRow) -> None:
        """Show `row` instead of what was shown before."""
        values = {name: getattr(row, name) for name in ("step", "total", "width", "height", "media_type", "data")}
        insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        statement = insert(PREVIEWS).values(job_id=job_id, **values)
        with self._database.touch() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=[PREVIEWS.c.job_id], set_=values))

    def get(self, job_id: str, after: int | None = None) -> PreviewRow | None:
        """The latest preview; None if there is none, or if it is still the one of step `after`."""
        query = select(PREVIEWS).where(PREVIEWS.c.job_id == job_id)
        if after is not None:
            query = query.where(PREVIEWS.c.step != after)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return PreviewRow(*row[1:]) if row is not None else None

    def drop(self, job_id: str) -> None:
        """The job is over, or begins again."""
        with self._database.touch() as connection:
            connection.execute(delete(PREVIEWS).where(PREVIEWS.c.job_id == job_id))
