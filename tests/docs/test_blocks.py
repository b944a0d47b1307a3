from pathlib import Path

import pytest

from tests.docs.blocks import DATA, EXECUTED, FOR_PEOPLE, Block, blocks_of, check, execute
from tests.support.pictures import write_image

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_CODE = [path for path in DOCUMENTS if any(b.language in EXECUTED for b in blocks_of(path.read_text("utf-8")))]


def name_of(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_block_says_what_it_is(path: Path) -> None:
    known = {*EXECUTED, *DATA, *FOR_PEOPLE}
    unclear = [block.line for block in blocks_of(path.read_text("utf-8")) if block.language not in known]
    assert unclear == [], f"{path.name}: mark the blocks at these lines with one of {sorted(known)}"


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_CODE, ids=name_of)
def test_what_the_documents_show_works(path: Path, tmp_path: Path) -> None:
    # what the reader of some of them has already
    write_image(tmp_path / "picture.png")
    (tmp_path / "training-data").mkdir()
    write_image(tmp_path / "training-data" / "a.png")
    execute(blocks_of(path.read_text("utf-8")), tmp_path)


def test_the_readme_draws_and_edits() -> None:
    shown = "".join(
        block.text for block in blocks_of((ROOT / "README.md").read_text("utf-8")) if block.language in EXECUTED
    )
    for part in ("licht generate", " -i ", "--start", "licht.load("):
        assert part in shown


def test_links_between_documents_lead_somewhere() -> None:
    import re

    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_blocks_are_found_with_their_lines_and_files() -> None:
    text = (
        "a\n```sh\necho 1\n```\n\n```json file=a.jsonl\n{}\n{}\n```\n````text\n```\n````\n  ```python\n  x = 1\n  ```\n"
    )
    assert [(block.line, block.language, block.file) for block in blocks_of(text)] == [
        (2, "sh", None),
        (6, "json", "a.jsonl"),
        (10, "text", None),
        (13, "python", None),
    ]


@pytest.mark.parametrize(
    "block",
    [
        Block(3, "sh", None, "true\nfalse\ntrue"),
        Block(3, "sh", None, "false | cat"),
        Block(3, "sh", None, "echo $UNSET_NAME"),
        Block(3, "python", None, "1 / 0"),
        Block(3, "json", None, "{"),
        Block(3, "toml", None, "= 1"),
    ],
)
def test_a_block_that_fails_is_seen(block: Block, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ZeroDivisionError, ValueError)):
        execute([block], tmp_path)


def test_blocks_share_a_folder_and_names(tmp_path: Path) -> None:
    made = [
        Block(1, "toml", "a.toml", "x = 1\n"),
        Block(2, "python", None, "text = open('a.toml').read()"),
        Block(3, "python", None, "open('b', 'w').write(text)"),
        Block(4, "sh", None, "cmp a.toml b"),
        Block(5, "text", None, "false"),
    ]
    execute(made, tmp_path)
    check(Block(1, "json", "a.jsonl", "{}\n[]\n"))
