"""What goes when: jobs and their pictures by age and by size, and files that no row needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from licht.service.database.connect import Database
from licht.service.database.files import needed_files
from licht.service.queue.store import JobStore
from licht.service.storage import GRACE_S, Storage

DAY_S: Final = 86_400.0
_JOBS_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Removed:
    """What one round took away."""

    jobs: int = 0
    files: int = 0
    bytes: int = 0

    def __bool__(self) -> bool:
        return self != Removed()


class Retention:
    """The rules of one service. Metering is kept for ever: what was used was used."""

    def __init__(
        self,
        store: JobStore,
        storage: Storage,
        clock: Callable[[], float],
        *,
        keep_days: float,
        keep_bytes: int | None = None,
    ) -> None:
        """Keep jobs for `keep_days` after their end, and of those as many as fit into `keep_bytes` (None: all)."""
        self._store = store
        self._database: Database = store.database
        self._storage = storage
        self._clock = clock
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes

    def run(self) -> Removed:
        """One round. Raises `NotAvailable`, after which the next round goes on where this one stopped."""
        jobs = self._by_age()
        files, freed = self._orphans()
        if self._keep_bytes is not None:
            over = self._storage.size_bytes() - self._keep_bytes
            if over > 0:
                more = self._by_size(over)
                jobs, files, freed = jobs + more.jobs, files + more.files, freed + more.bytes
        if jobs or files:
            self._database.compact()
        return Removed(jobs, files, freed)

    def _by_age(self) -> int:
        before, jobs = self._clock() - self._keep_days * DAY_S, 0
        while ids := self._store.oldest(_JOBS_AT_ONCE, ended_before=before):
            self._drop(self._store.remove(ids))
            jobs += len(ids)
        return jobs

    def _by_size(self, over: int) -> Removed:
        """The oldest first, until so much is gone; jobs that are not over and what others share stay."""
        jobs = files = freed = 0
        while freed < over and (ids := self._store.oldest(1)):
            dropped = self._drop(self._store.remove(ids))
            jobs, files, freed = jobs + len(ids), files + dropped.files, freed + dropped.bytes
        return Removed(jobs, files, freed)

    def _drop(self, digests: list[str]) -> Removed:
        freed = 0
        for digest in digests:
            freed += self._storage.file_bytes(digest)
            self._storage.delete(digest)
        return Removed(0, len(digests), freed)

    def _orphans(self) -> tuple[int, int]:
        """Files that a worker wrote before it died, or an API that then did not accept the job."""
        before = self._clock() - GRACE_S
        old = [each for each in self._storage.files() if each.modified_at < before]
        with self._database.read() as connection:
            needed = needed_files(connection, {each.digest for each in old if each.digest is not None})
        gone = [each for each in old if each.digest not in needed]
        for each in gone:
            self._storage.delete_stored(each)
        return len(gone), sum(each.bytes for each in gone)
