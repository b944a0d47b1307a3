import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.architecture import table, tree_rules

SLASH = "/"  # so that this file holds no path of the kind that it looks for
HASHED = "torch==2.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"


def test_the_tree_is_small(files: list[Path]) -> None:
    assert tree_rules.the_tree_is_small(files) == []


def test_no_machine_paths(files: list[Path]) -> None:
    assert tree_rules.no_machine_paths(files) == []


def test_locks_name_no_hosts(files: list[Path]) -> None:
    assert {path.name for path in files if tree_rules.is_lock(path)} >= {"runtime.lock", "test.lock", "bootstrap.lock"}
    assert tree_rules.locks_name_no_hosts(files) == []


def test_locks_pin_and_hash_everything(files: list[Path]) -> None:
    assert tree_rules.locks_pin_and_hash_everything(files) == []


def test_the_locks_agree(root: Path) -> None:
    runtime, tests = (tree_rules.pins(root / "requirements" / f"{name}.lock") for name in ("runtime", "test"))
    assert runtime <= tests


def test_the_locks_hold_what_is_declared(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    declared = {
        "runtime": [*project["project"]["dependencies"], *project["dependency-groups"]["build"]],
        "test": [*(each for name in ("golden", "s3", "telemetry", "test", "check") for each in extras[name])],
        "bootstrap": project["dependency-groups"]["bootstrap"],
    }
    for lock, requirements in declared.items():
        pinned = {name for name, _ in tree_rules.pins(root / "requirements" / f"{lock}.lock")}
        named = {requirement.partition(">=")[0] for requirement in requirements}
        assert {each.partition("[")[0] for each in named} - {"lichtung"} <= pinned, (
            f"run `make lock`: {lock}.lock lacks something"
        )


def test_package_data_is_not_ignored(root: Path, files: list[Path]) -> None:
    """What git ignores, the build leaves out of the package, and nobody notices until it is installed elsewhere."""
    shipped = [path for path in (root / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sorted(set(shipped) - set(files)) == []


def test_a_large_tree_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    with path.open("wb") as file:
        file.truncate(table.MAX_TREE_BYTES)
    small = tmp_path / "small.txt"
    small.write_text("x", encoding="utf-8")
    assert tree_rules.the_tree_is_small([path]) == []
    assert "weights.bin" in tree_rules.the_tree_is_small([path, small])[0]
    link = tmp_path / "link.bin"
    link.symlink_to(path)
    assert tree_rules.the_tree_is_small([link, small]) == []


@pytest.mark.parametrize("line", ["cd {}work{}main", "HOME={}root{}.cache", "see `{}root{}x`"])
def test_a_machine_path_is_seen(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text("fine\n" + line.format(SLASH, SLASH), encoding="utf-8")
    assert [found.split(" ")[0] for found in tree_rules.no_machine_paths([path])] == [f"{path}:2"]


@pytest.mark.parametrize("line", ["a frame{}work{}like", "docs.example{}root{}", "$HOME{}work{}x", "the root{} {}"])
def test_other_slashes_are_let_be(tmp_path: Path, line: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text(line.format(SLASH, SLASH), encoding="utf-8")
    assert tree_rules.no_machine_paths([path]) == []


def test_binary_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\0" + f"{SLASH}root{SLASH}".encode())
    assert tree_rules.no_machine_paths([path]) == []


@pytest.mark.parametrize(
    "line",
    [
        "--index-url something",
        "-i something",
        "torch @ https:" + 2 * SLASH + "host" + SLASH + "a.whl",
        "-f file:" + 2 * SLASH,
    ],
)
@pytest.mark.parametrize("name", ["runtime.lock", "requirements-dev.txt", "uv.lock"])
def test_a_host_in_a_lock_is_seen(tmp_path: Path, name: str, line: str) -> None:
    path = tmp_path / name
    path.write_text(HASHED, encoding="utf-8")
    assert tree_rules.locks_name_no_hosts([path]) == []
    path.write_text(HASHED + line, encoding="utf-8")
    assert tree_rules.locks_name_no_hosts([path])


@pytest.mark.parametrize("line", ["torch==2.0\n", "torch>=2.0\n", ""])
def test_an_unhashed_requirement_is_seen(tmp_path: Path, line: str) -> None:
    path = tmp_path / "some.lock"
    path.write_text("# comment\n" + HASHED, encoding="utf-8")
    assert tree_rules.locks_pin_and_hash_everything([path]) == []
    assert tree_rules.pins(path) == {("torch", "2.0")}
    path.write_text(HASHED + line if line else "", encoding="utf-8")
    assert len(tree_rules.locks_pin_and_hash_everything([path])) == 1


def test_untracked_files_count_and_ignored_ones_do_not(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for name in ("kept.txt", "ignored.txt", "new.txt"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    (tmp_path / ".gitignore").write_text("ignored.txt\n", encoding="utf-8")
    subprocess.run(["git", "add", "kept.txt"], cwd=tmp_path, check=True)
    names = {path.name for path in tree_rules.repository_files(tmp_path)}
    assert names == {".gitignore", "kept.txt", "new.txt"}
