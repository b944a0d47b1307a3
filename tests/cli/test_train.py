"""`licht train` from its command line: what it refuses, and several processes as torchrun starts them."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from licht.cli.main import run as command
from licht.recipes.nano import nano_smoke
from licht.training.config import DataConfig, Source, Stream
from licht.training.log import read_log
from licht.training.tokenizer import save_tokenizer, train_tokenizer
from tests.training.runs import CAPTIONS, TINY, autoencoder_run


def test_a_resume_with_another_recipe_is_refused_before_data_are_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = autoencoder_run(tmp_path / "run")
    (tmp_path / "recipe.json").write_text(recipe.as_json(), "utf-8")
    data = tmp_path / "data"
    data.mkdir()
    (data / "pictures.bin").write_bytes(b"hours of work")
    place = ["--run", str(tmp_path / "run"), "--data", str(data)]
    assert command(["train", str(tmp_path / "recipe.json"), *place, "--set", "data.pictures=288"]) == 2
    assert "data.pictures: 288 here, 64 there" in capsys.readouterr().err
    assert [path.name for path in data.iterdir()] == ["pictures.bin"]
    assert (data / "pictures.bin").read_bytes() == b"hours of work"


@pytest.mark.slow
def test_two_processes_prepare_once_and_train(tmp_path: Path) -> None:
    """The first prepares the data while the other waits; weights are spread; one of them talks."""
    autoencoder_run(tmp_path / "autoencoder")
    stream = Stream("pictures", Source.PICTURE, ("one",), 16, 1.0, size_px=(64, 64), captions=2)
    recipe = nano_smoke()
    recipe = replace(
        recipe,
        networks=TINY,
        autoencoder_from=str(tmp_path / "autoencoder"),
        data=DataConfig(streams=(stream,)),
        optim=replace(recipe.optim, steps=3, batch=4, warmup_steps=1, shard=True),
    )
    (tmp_path / "recipe.json").write_text(recipe.as_json(), "utf-8")
    run = tmp_path / "run"
    save_tokenizer(train_tokenizer(CAPTIONS, TINY.vocab_size), run / "tokenizer")
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*start, "-m", "--", "licht", "train", str(tmp_path / "recipe.json"), "--run", str(run), "--minutes", "9"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(run)]
    assert done.stderr.count(f"{run}: step 3 of 3") == 1
    assert (run / "step-00000003" / "state.safetensors").is_file()
    assert (run / "sample-00000003.png").is_file()
    assert [line["step"] for line in read_log(run) if "loss" in line] == [0]
