"""The fenced code blocks of the documents.

`sh` and `python` are executed, in order, in one folder for each document. A block with `file=NAME` is written there first.
`json` and `toml` must be such. `text` and `console` are for people: what cannot run here, and what was printed.
"""

import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
FOR_PEOPLE = ("text", "console")
EXECUTED = ("sh", "python")
DATA = ("json", "toml")
_TIMEOUT_S = 400


@dataclass(frozen=True, slots=True)
class Block:
    """One block: where it begins, its language, the file it is to be written to, its text."""

    line: int
    language: str
    file: str | None
    text: str


def blocks_of(text: str) -> list[Block]:
    """Every fenced block of a document."""
    found = []
    for match in _FENCE.finditer(text):
        words = match[3].split()
        named = [word.removeprefix("file=") for word in words if word.startswith("file=")]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(line, words[0] if words else "", named[0] if named else None, textwrap.dedent(match[4])))
    return found


def execute(blocks: list[Block], folder: Path) -> None:
    """Run the blocks of one document in `folder`. What fails names its line."""
    names: dict[str, Any] = {"__name__": "document"}
    for block in blocks:
        if block.file is not None:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        if block.language == "sh":
            _shell(block, folder)
        elif block.language == "python":
            before = Path.cwd()
            os.chdir(folder)
            try:
                exec(compile(block.text, f"line {block.line}", "exec"), names)  # noqa: S102 - it is our own
            finally:
                os.chdir(before)
        elif block.language in DATA:
            check(block)


def check(block: Block) -> None:
    """Raise `ValueError` unless a block of data is what its language says; a `.jsonl` file is read line by line."""
    if block.language == "toml":
        tomllib.loads(block.text)
    else:
        for part in block.text.splitlines() if (block.file or "").endswith(".jsonl") else [block.text]:
            json.loads(part)


def _shell(block: Block, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=folder,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    assert done.returncode == 0, f"line {block.line} ends with {done.returncode}:\n{done.stdout}{done.stderr}"
