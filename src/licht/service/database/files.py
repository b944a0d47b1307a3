"""Which stored files the rows need: every column called `digest`, in whatever table, names one."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, bindparam, select, union

from licht.service.database.tables import METADATA

_AT_ONCE: Final = 500
_NEEDED: Final = union(
    *(
        select(table.c.digest).where(table.c.digest.in_(bindparam("digests", expanding=True)))
        for table in METADATA.sorted_tables
        if "digest" in table.c
    )
)


def needed_files(connection: Connection, digests: Collection[str]) -> set[str]:
    """Those of `digests` that some row names."""
    wanted, found = sorted(digests), set[str]()
    for start in range(0, len(wanted), _AT_ONCE):
        found |= set(connection.execute(_NEEDED, {"digests": wanted[start : start + _AT_ONCE]}).scalars())
    return found
