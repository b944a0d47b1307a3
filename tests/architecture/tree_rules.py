"""What may stand in the repository: each rule takes files and returns what breaks it, one line each."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.architecture import table

_MACHINE_PATH = re.compile(r"(?<![\w.$}~-])/(?:work|root)/")
_ADDRESS = re.compile(r"\w+://|^\s*(?:-i|-f|--(?:extra-)?index-url|--find-links|--trusted-host)\b", re.MULTILINE)
_PIN = re.compile(r"^([a-z0-9][\w.-]*)==(\S+)", re.MULTILINE)
_HASHED_PIN = re.compile(_PIN.pattern + r"(?: ;.*)? \\\n    --hash=sha256:[0-9a-f]{64}\b", re.MULTILINE)


def repository_files(root: Path) -> list[Path]:
    """What is committed, and what would be with the next `git add`: untracked files that are not ignored."""
    listing = subprocess.run(
        # The clone may belong to somebody else than the person who runs the tests, which git refuses by default.
        ["git", "-c", f"safe.directory={root}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [path for name in listing.split("\0") if name and (path := root / name).is_file()]


def the_tree_is_small(paths: Iterable[Path]) -> list[str]:
    """Whoever clones the repository takes all of it; of a link, the link."""
    sizes = {path: path.lstat().st_size for path in paths}
    total = sum(sizes.values())
    if total <= table.MAX_TREE_BYTES:
        return []
    largest = sorted(sizes, key=lambda path: sizes[path], reverse=True)[:5]
    return [f"{total} bytes in all; at most {table.MAX_TREE_BYTES}; the largest: {', '.join(map(str, largest))}"]


def no_machine_paths(paths: Iterable[Path]) -> list[str]:
    """The paths of the machine that somebody happened to work on mean nothing on another one."""
    return [
        f"{path}:{number} {line.strip()[:100]}"
        for path, text in _texts(paths)
        for number, line in enumerate(text.splitlines(), 1)
        if _MACHINE_PATH.search(line)
    ]


def locks_name_no_hosts(paths: Iterable[Path]) -> list[str]:
    """Where packages come from is decided where they are installed; their hashes say what they are."""
    return [
        f"{path} names {found.group().strip()}"
        for path, text in _texts(path for path in paths if is_lock(path))
        for found in _ADDRESS.finditer(text)
    ]


def locks_pin_and_hash_everything(paths: Iterable[Path]) -> list[str]:
    """Every requirement of a lock is `name==version` with a hash."""
    broken = []
    for path, text in _texts(path for path in paths if is_lock(path)):
        required = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
        hashed = _HASHED_PIN.findall(text)
        if not required or len(hashed) != len(required):
            broken.append(f"{path} has {len(required)} requirements, {len(hashed)} of them pinned and hashed")
    return broken


def is_lock(path: Path) -> bool:
    """Whether a file says which packages to install."""
    return path.suffix == ".lock" or (path.name.startswith("requirements") and path.suffix in {".txt", ".in"})


def pins(path: Path) -> set[tuple[str, str]]:
    """The (name, version) pairs of a lock."""
    return {(found.group(1), found.group(2)) for found in _PIN.finditer(path.read_text(encoding="utf-8"))}


def _texts(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Text files with their text. A file with a zero byte near its start, or that is not UTF-8, is none."""
    for path in paths:
        with path.open("rb") as file:
            if b"\0" in file.read(8192):
                continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
