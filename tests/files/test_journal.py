import json
from pathlib import Path

import pytest

from licht.core.errors import InvalidOutput, InvalidRequest
from licht.files.journal import Journal


def ready(key: str, **more: object) -> dict[str, object]:
    return {"key": key, "status": "ready", "images": [], **more}


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_has_ended_is_there_in_the_next_run_and_failures_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "jobs.results.jsonl"
    with Journal(path) as journal:
        journal.begin("1")
        journal.end(ready("1", name="ä"))
        journal.end({"key": "2", "status": "failed", "error": {}})
    assert len(lines(path)) == 2
    with Journal(path) as journal:
        assert journal.ready == {"1": ready("1", name="ä")}
        assert journal.begun == frozenset()
        assert lines(path) == [ready("1", name="ä")]
    assert [entry.name for entry in tmp_path.iterdir()] == ["jobs.results.jsonl"]


def test_a_job_that_had_begun_when_the_run_broke_off_is_known(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"

    def broken_off() -> None:
        with Journal(path) as journal:
            journal.begin("1")
            journal.end(ready("1"))
            journal.begin("2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    with Journal(path) as journal:
        assert journal.begun == {"1", "2"}
        assert set(journal.ready) == {"1"}


def test_a_torn_last_line_counts_as_not_written(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(ready("1")) + "\n" + json.dumps(ready("2"))[:-3])
    with Journal(path) as journal:
        assert set(journal.ready) == {"1"}
        journal.end(ready("2"))
    assert [line["key"] for line in lines(path)] == ["1", "2"]


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Journal(path) as journal:
        with pytest.raises(InvalidRequest, match="another run is at work"):
            Journal(path)
        journal.end(ready("1"))
    with Journal(path) as journal:
        assert set(journal.ready) == {"1"}


@pytest.mark.parametrize("text", ["hello\n", "[]\n", '{"key": 1, "status": "ready"}\n', '{"key": "1"}\n', "\n"])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidOutput, match="line 1 of"):
        Journal(path)
    assert path.read_text() == text


def test_what_a_later_job_has_written_over_no_longer_stands(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first, other = [{"path": "1.png"}], [{"path": "2.png"}]
    told = [
        ready("1", images=first),
        ready("2", images=other),
        ready("3", images=first),
        ready("4", images=first, folder="elsewhere"),
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in told))
    with Journal(path) as journal:
        assert list(journal.ready) == ["2", "3", "4"]
    assert lines(path) == told[1:]


def test_a_run_that_never_began_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("hello\n")
    with pytest.raises(InvalidOutput):
        Journal(tmp_path / "results.jsonl")
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "other.jsonl"):
        raise KeyboardInterrupt
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["other.jsonl", "results.jsonl"]


def test_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOutput, match="cannot be written"):
        Journal(tmp_path / "nowhere" / "results.jsonl")
