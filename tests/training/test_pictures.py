"""Prepared data on disk: what is made anew is filled anew, and what is kept says what it is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

from licht.cli.main import run as command
from licht.core.errors import InvalidSettings
from licht.recipes.nano import nano_smoke
from licht.training.assemble import find_tokenizer
from licht.training.config import Source, Stream
from licht.training.files import weights_digest, write_text
from licht.training.pictures import PictureStore
from licht.training.state import read_tensors
from licht.training.store import StreamStore
from licht.training.tokenizer import save_tokenizer, train_tokenizer
from licht.training.trained import trained_autoencoder
from tests.training.runs import CAPTIONS, autoencoder_run

SIZE = (16, 16)
STREAM = Stream("pictures", Source.PICTURE, ("one",), rows=4, weight=1.0, size_px=(32, 32), captions=1)


def bright(first: int, count: int) -> Tensor:
    return torch.full((count, *SIZE, 3), 200 + first, dtype=torch.uint8)


def ones(stream: Stream, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert first < stream.rows
    return np.ones((count, 4, 8)), np.ones((count, 1, 8)), np.ones((count, 1, 6))


def killed(*arguments: object) -> NoReturn:
    assert arguments
    raise KeyboardInterrupt


def quiet(*told: object) -> None:
    assert told


@pytest.mark.parametrize("lost", ["removed", "shortened"])
def test_pictures_are_rendered_again_where_their_file_was_made_anew(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "pictures.bin"
    PictureStore(path, 4, SIZE).fill(bright, 2, quiet)
    if lost == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    store = PictureStore(path, 4, SIZE)
    store.fill(bright, 2, quiet)
    assert store.pixels(torch.arange(4)).min() == 200


@pytest.mark.parametrize("lost", ["latents", "references", "ids"])
def test_rows_are_prepared_again_where_one_of_their_files_is_gone(tmp_path: Path, lost: str) -> None:
    calls: list[int] = []

    def prepare(stream: Stream, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        calls.append(first)
        return ones(stream, first, count)

    for _ in range(2):
        StreamStore(tmp_path, STREAM, 8, 6).fill(prepare, 2, quiet)
    assert calls == [0, 2]
    (tmp_path / "pictures" / f"{lost}.bin").unlink()
    store = StreamStore(tmp_path, STREAM, 8, 6)
    store.fill(prepare, 2, quiet)
    assert calls == [0, 2, 0, 2]
    assert store.rows(torch.arange(4)).x0_BLC.min() == 1
    assert store.rows(torch.arange(4)).ids_BT.min() == 1


@pytest.mark.parametrize("torn", ["", "2\n\0", "many"])
def test_progress_that_was_never_finished_says_nothing(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "pictures.bin"
    PictureStore(path, 4, SIZE).fill(bright, 2, quiet)
    path.with_suffix(".done").write_text(torn)
    told: list[int] = []
    PictureStore(path, 4, SIZE).fill(bright, 2, lambda done, total: told.append(done))
    assert told == [2, 4]


@pytest.mark.parametrize("name", ["pictures.done", "stream.json"])
def test_small_files_are_whole_or_as_they_were(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / name, "64")
    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / name, "128")
    assert (tmp_path / name).read_text() == "64"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_tokenizer_that_was_not_finished_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, run = tmp_path / "start", tmp_path / "run"
    save_tokenizer(train_tokenizer(CAPTIONS, 400), start / "tokenizer")
    recipe = replace(nano_smoke(), start_from=str(start))

    def half(kept: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "tokenizer.json").write_bytes((kept / "tokenizer.json").read_bytes())
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copytree", half)
        with pytest.raises(KeyboardInterrupt):
            find_tokenizer(recipe, run, {})
    assert not (run / "tokenizer").exists()
    find_tokenizer(recipe, run, {})
    names = [{path.name for path in (each / "tokenizer").iterdir()} for each in (start, run)]
    assert names[0] == names[1]
    assert [path.name for path in run.iterdir()] == ["tokenizer"]


def test_statistics_that_were_not_finished_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder_run(tmp_path)
    kept = tmp_path / "step-00000003" / "statistics.safetensors"

    def half(path: Path, tensors: dict[str, Tensor]) -> None:
        assert tensors
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("licht.training.trained.save_tensors", half)
        with pytest.raises(KeyboardInterrupt):
            trained_autoencoder(tmp_path)
    assert not kept.exists()
    trained_autoencoder(tmp_path)
    assert set(read_tensors(kept)) == {"running_mean", "running_var"}


def test_pictures_of_something_else_are_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "pictures.bin"
    PictureStore(path, 4, SIZE, {"shows": "cats", "seed": 0}).fill(bright, 2, quiet)
    before = path.read_bytes()
    for count, shown, message in (
        (4, {"shows": "dogs", "seed": 0}, "shows: 'dogs' here, 'cats' there"),
        (4, {"shows": "cats", "seed": 1}, "seed: 1 here, 0 there"),
        (5, {"shows": "cats", "seed": 0}, "count: 5 here, 4 there"),
    ):
        with pytest.raises(InvalidSettings, match=message):
            PictureStore(path, count, SIZE, shown)
    assert path.read_bytes() == before
    PictureStore(path, 4, SIZE, {"shows": "cats", "seed": 0}).fill(killed, 2, quiet)


def test_what_was_prepared_before_descriptions_existed_is_used_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pictures.bin"
    PictureStore(path, 4, SIZE).fill(bright, 2, quiet)
    PictureStore(path, 4, SIZE, {"shows": "cats", "seed": 0}).fill(killed, 2, quiet)
    assert not path.with_suffix(".json").exists()


def test_a_stream_of_another_seed_or_networks_is_refused_unless_it_is_older_than_that(tmp_path: Path) -> None:
    source = {"seed": 0, "tokenizer": "a", "autoencoder": "b"}
    store = StreamStore(tmp_path, STREAM, 8, 6, source)
    store.fill(ones, 2, quiet)
    description = tmp_path / "pictures" / "stream.json"
    for name, value in (("seed", 1), ("tokenizer", "c"), ("autoencoder", "c")):
        with pytest.raises(InvalidSettings, match=f"{name}: {value!r} here, {source[name]!r} there"):
            StreamStore(tmp_path, STREAM, 8, 6, {**source, name: value})
    old = {name: value for name, value in json.loads(description.read_text()).items() if name not in source}
    description.write_text(json.dumps(old))
    StreamStore(tmp_path, STREAM, 8, 6, source).fill(killed, 2, quiet)
    assert json.loads(description.read_text()) == old


def test_a_judge_does_not_learn_from_the_pictures_of_an_autoencoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {"shows": "every sort of picture", "seed": 9_000}
    PictureStore(tmp_path / "pictures.bin", 600, (128, 128), shown)
    place = ["--run", str(tmp_path / "run"), "--data", str(tmp_path)]
    assert command(["train", "nano_judge", *place, "--set", "data.pictures=600"]) == 2
    assert "shows: 'scenes of the judge' here, 'every sort of picture' there" in capsys.readouterr().err


def test_the_digest_of_weights_is_that_of_their_values() -> None:
    networks = [torch.nn.BatchNorm2d(4) for _ in range(2)]
    assert weights_digest(networks[0]) == weights_digest(networks[1])
    with torch.no_grad():
        networks[1].get_parameter("weight")[3] += 1e-6
    assert weights_digest(networks[0]) != weights_digest(networks[1])
