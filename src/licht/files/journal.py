"""A journal of jobs that survives a kill: one line of JSON for each job that has ended, on the disk before the next.

A job that had begun when the process was killed is known too, so that what it has left may be written over.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

from licht.core.errors import InvalidOutput, InvalidRequest, LichtError, OutputFailed

READY: Final = "ready"
FAILED: Final = "failed"


class Journal:
    """The results file of one list of jobs, locked while it is open."""

    def __init__(self, path: Path) -> None:
        """Open or begin the journal at `path`. Jobs that failed are forgotten, so that they are tried again.

        Raises `InvalidRequest` if another process is at it, `InvalidOutput` if it is no journal, `OutputFailed`.
        """
        self.path = path
        self._begun_path = path.with_name(f".{path.name}.begun")
        try:
            self._begun_file = self._begun_path.open("a+", encoding="utf-8")
        except OSError as error:
            raise InvalidOutput(
                f"{path} cannot be written ({error.strerror or error}); choose another place", field="results"
            ) from error
        try:
            fcntl.flock(self._begun_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._begun_file.close()
            raise InvalidRequest(
                f"another run is at work on {path}; wait for it or stop it", field="results"
            ) from error
        try:
            records = [record for record in _standing(_read(path)) if record["status"] == READY]
            self._rewrite(records)
            self.ready: dict[str, Mapping[str, Any]] = {record["key"]: record for record in records}
            self.begun = frozenset(_keys(self._begun_path))
            self._file = path.open("a", encoding="utf-8")
        except BaseException:
            self._forget()
            raise

    def begin(self, key: str) -> None:
        """A job is about to be worked on."""
        _append(self._begun_file, json.dumps(key), self._begun_path)

    def end(self, record: Mapping[str, Any]) -> None:
        """A job has ended; `record` has at least its `key` and `status`. Raises `OutputFailed`."""
        _append(self._file, json.dumps(record, ensure_ascii=False), self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what could not be written was said when it was tried
            self._file.close()
        with suppress(LichtError):  # else the next run does it
            records = _read(self.path)
            standing = _standing(records)
            if len(standing) < len(records):
                self._rewrite(standing)
        self._forget(finished=kind is None)

    def _forget(self, finished: bool = False) -> None:
        """Let go of the lock. What says which jobs had begun is kept if there is any and the run is not finished."""
        with suppress(OSError):
            if finished or not self._begun_path.stat().st_size:
                self._begun_path.unlink()
        with suppress(OSError):
            self._begun_file.close()

    def _rewrite(self, records: list[dict[str, Any]]) -> None:
        """The journal with these records alone, put in place in one step."""
        temporary = self.path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise OutputFailed(
                f"{self.path} cannot be written ({error.strerror}); make room", field="results"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink()


def _read(path: Path) -> list[dict[str, Any]]:
    """The records in a journal. A torn last line, which a kill leaves, counts as not written."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidOutput(
            f"{path} cannot be read ({error.strerror}); choose another place", field="results"
        ) from error
    *lines, _ = text.split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is None:
            raise InvalidOutput(
                f"line {number} of {path} is no result of a batch; choose another file, or remove this one",
                field="results",
            )
        records.append(record)
    return records


def _standing(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All but those whose pictures a later job has written over."""
    standing: list[dict[str, Any]] = []
    taken: set[tuple[str, str]] = set()
    for record in reversed(records):
        folder = str(record.get("folder"))
        paths = {(folder, str(image.get("path"))) for image in record.get("images", ()) if isinstance(image, dict)}
        if paths.isdisjoint(taken):
            standing.append(record)
            taken |= paths
    return standing[::-1]


def _record(line: str) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        record = json.loads(line)
        if isinstance(record, dict) and isinstance(record.get("key"), str) and record.get("status") in (READY, FAILED):
            return record
    return None


def _keys(path: Path) -> list[str]:
    try:
        *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(json.loads(line))
    return [key for key in found if isinstance(key, str)]


def _append(file: TextIO, line: str, path: Path) -> None:
    try:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise OutputFailed(
            f"{path} cannot be written ({error.strerror}); make room, then run the same command again", field="results"
        ) from error
