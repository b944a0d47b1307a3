import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from licht.core.errors import InvalidSettings
from licht.training.config import Broken, Source, Stream
from licht.training.folder import FolderRows, read_picture, scan, settle_folder_streams
from licht.training.store import StreamStore
from licht.training.tokenizer import CaptionEncoder, train_tokenizer

TEXTS = ["a red square", "a blue square", "make it blue"]
ENCODER = CaptionEncoder(train_tokenizer(TEXTS, 300), 16)


def paint(path: Path, color: str, size: tuple[int, int] = (40, 40), text: str | None = None) -> Path:
    Image.new("RGB", size, color).save(path)
    if text is not None:
        path.with_suffix(".txt").write_text(text, "utf-8")
    return path


def stream(folder: Path, **fields: object) -> Stream:
    usual = Stream("own", Source.FOLDER, (), 0, 1.0, size_px=(64, 64), captions=2, reference_px=32, folder=str(folder))
    return replace(usual, **fields)  # type: ignore[arg-type] # tests name fields of the stream


def mean_colors(pictures: Tensor) -> Tensor:
    """Stands for an autoencoder: a token of 3 channels for every 16 x 16 px."""
    patches = pictures.half().permute(0, 3, 1, 2).unfold(2, 16, 16).unfold(3, 16, 16)
    return patches.mean((4, 5)).flatten(2).transpose(1, 2)


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    paint(folder / "red.png", "red", text="a red square\n\na red picture\n")
    paint(folder / "wide.jpg", "blue", (80, 40), text="a blue picture")
    return folder


def test_captions_are_read_line_by_line(captioned: Path) -> None:
    listing = scan(captioned, Broken.REFUSE)
    assert [(row.file.name, row.texts, row.size) for row in listing.rows] == [
        ("red.png", ("a red square", "a red picture"), (40, 40)),
        ("wide.jpg", ("a blue picture",), (80, 40)),
    ]
    assert listing.summary() == "2 usable"


def test_broken_and_untold_pictures_are_refused_or_skipped_by_choice(captioned: Path) -> None:
    (captioned / "torn.png").write_bytes((captioned / "red.png").read_bytes()[:40])
    (captioned / "torn.txt").write_text("a torn picture")
    paint(captioned / "silent.png", "green")
    paint(captioned / "blank.png", "green", text="  \n")
    with pytest.raises(
        InvalidSettings, match=r"1 broken \(torn.png: cannot be read .*2 without a caption .*blank.png, silent"
    ):
        scan(captioned, Broken.REFUSE)
    listing = scan(captioned, Broken.SKIP)
    assert [row.file.name for row in listing.rows] == ["red.png", "wide.jpg"]
    assert [path.name for path, _ in listing.broken] == ["torn.png"]
    assert [path.name for path in listing.untold] == ["blank.png", "silent.png"]


def write_metadata(folder: Path, *lines: object) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("before.png", "after.png", "other.png"):
        paint(folder / name, "red")
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def test_targets_with_references_come_from_metadata(tmp_path: Path) -> None:
    lines = (
        {"file": "after.png", "text": "make it blue", "references": ["before.png"]},
        {
            "file": "after.png",
            "text": ["both together", "image 1 and image 2"],
            "references": ["before.png", "other.png"],
        },
        {"file": "after.png", "references": ["missing.png"], "text": "never"},
    )
    listing = scan(write_metadata(tmp_path / "own", *lines), Broken.SKIP)
    assert [len(row.references) for row in listing.rows] == [1, 2]
    assert listing.rows[1].texts == ("both together", "image 1 and image 2")
    assert [(path.name, why) for path, why in listing.broken] == [("missing.png", "not there")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "no file"}, "line 1: expected an object with file"),
        ({"file": "after.png", "text": 5}, "text is a string or a list"),
        ({"file": "after.png", "text": "x", "mask": "m.png"}, "expected an object with file"),
        ({"file": "../../etc/passwd.png", "text": "x"}, "lies outside of the data folder"),
    ],
)
def test_metadata_that_cannot_be_understood_is_refused(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        scan(write_metadata(tmp_path / "own", line), Broken.SKIP)


def test_folders_without_anything_usable_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="is not there"):
        scan(tmp_path / "nowhere", Broken.SKIP)
    with pytest.raises(InvalidSettings, match="no usable pictures: 0 usable"):
        scan(tmp_path, Broken.SKIP)
    (tmp_path / "metadata.jsonl").write_text("{broken")
    with pytest.raises(InvalidSettings, match="line 1 is not JSON"):
        scan(tmp_path, Broken.SKIP)


def test_pictures_go_to_the_bucket_of_their_aspect(captioned: Path) -> None:
    streams = (
        stream(captioned),
        stream(captioned, name="wide", size_px=(96, 48)),
        stream(captioned, name="tall", size_px=(48, 96)),
    )
    said: list[str] = []
    settled, given = settle_folder_streams(streams, Broken.SKIP, said.append)
    assert [(each.name, each.rows) for each in settled] == [("own", 1), ("wide", 1)]
    assert given["wide"][0].file.name == "wide.jpg"
    assert said == [f"{captioned}: 2 usable", "streams left out, for no picture fits best into them: 1 (tall)"]
    with pytest.raises(InvalidSettings, match="no picture fits best into tall; leave"):
        settle_folder_streams(streams, Broken.REFUSE, said.append)


def test_pictures_of_one_aspect_go_to_the_largest_bucket_that_they_fill(tmp_path: Path) -> None:
    for side in (40, 64, 200, 256, 300):
        paint(tmp_path / f"{side}.png", "red", (side, side), "a red square")
    streams = tuple(stream(tmp_path, name=str(side), size_px=(side, side)) for side in (64, 256, 128))
    settled, given = settle_folder_streams(streams, Broken.REFUSE, lambda line: None)
    assert [(each.name, each.rows) for each in settled] == [("64", 2), ("256", 2), ("128", 1)]
    assert {name: sorted(row.file.stem for row in rows) for name, rows in given.items()} == {
        "64": ["40", "64"],
        "128": ["200"],
        "256": ["256", "300"],
    }


def test_all_that_cannot_be_used_is_listed(captioned: Path, tmp_path: Path) -> None:
    for number in range(23):
        (captioned / f"torn{number:02d}.png").write_bytes(b"torn")
        (captioned / f"torn{number:02d}.txt").write_text("a torn picture")
    run, said = tmp_path / "run", list[str]()
    settle_folder_streams((stream(captioned),), Broken.SKIP, said.append, run)
    assert "23 broken (torn00.png: cannot be read" in said[0]
    assert "torn19.png" in said[0]
    assert f"and 3 more), all of them listed in {run / 'unusable-1.txt'}" in said[0]
    listed = (run / "unusable-1.txt").read_text().splitlines()
    assert len(listed) == 23
    assert listed[22].startswith(f"{captioned / 'torn22.png'}: cannot be read")
    for path in captioned.glob("torn*"):
        path.unlink()
    settle_folder_streams((stream(captioned),), Broken.SKIP, said.append, run)
    assert not list(run.iterdir())


def test_metadata_that_is_not_utf_8_is_refused_by_its_line(tmp_path: Path) -> None:
    folder = write_metadata(tmp_path / "own", {"file": "after.png", "text": "x"})
    with (folder / "metadata.jsonl").open("ab") as file:
        file.write('\n{"file": "after.png", "text": "grün"}'.encode("latin-1"))
    with pytest.raises(InvalidSettings, match="line 2 is not UTF-8"):
        scan(folder, Broken.SKIP)


def test_rows_that_no_stream_can_take_are_refused(captioned: Path) -> None:
    with pytest.raises(InvalidSettings, match="has 0 references, and no stream"):
        settle_folder_streams((stream(captioned, references=1),), Broken.REFUSE, lambda line: None)


def test_folder_rows_are_prepared_as_any_others(tmp_path: Path) -> None:
    folder = write_metadata(tmp_path / "own", {"file": "after.png", "text": TEXTS[:1], "references": ["before.png"]})
    paint(folder / "before.png", "blue")
    (settled,), given = settle_folder_streams((stream(folder, references=1),), Broken.REFUSE, lambda line: None)
    store = StreamStore(tmp_path / "data", settled, 3, 16)
    store.fill(FolderRows(mean_colors, ENCODER, given), 4, lambda name, done, total: None)
    rows = store.rows(torch.tensor([0, 1]))
    assert rows.x0_BLC.shape == (2, 16, 3)
    assert rows.x0_BLC[0, 0].tolist() == [255, 0, 0]
    assert rows.references_BRC is not None
    assert rows.references_BRC.shape == (2, 4, 3)
    assert rows.references_BRC[0, 0].tolist() == [0, 0, 255]
    expected = ENCODER([TEXTS[0]])[0].astype(np.int64)
    assert np.array_equal(rows.ids_BT.numpy(), np.repeat(expected, 2, 0))


def test_pictures_are_cut_around_the_centre_and_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (90, 30), "red")
    image.paste("blue", (30, 0, 60, 30))
    image.save(tmp_path / "wide.png")
    assert (read_picture(tmp_path / "wide.png", (32, 32))[:, 4:28] == torch.tensor([0, 0, 255])).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert scan_one(tmp_path / "turned.jpg") == (30, 90)


def scan_one(path: Path) -> tuple[int, int]:
    path.with_suffix(".txt").write_text("x")
    return next(row.size for row in scan(path.parent, Broken.SKIP).rows if row.file == path)
