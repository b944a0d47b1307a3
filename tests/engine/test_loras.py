from dataclasses import replace
from pathlib import Path

import pytest
import torch

from licht.checkpoint.folder import read_folder
from licht.core.errors import InvalidCheckpoint, InvalidRequest
from licht.core.request import ImageRequest, ImageResult, LoraUse
from licht.core.sizes import Size
from licht.engine.engine import Choice, Engine
from licht.engine.loras import KEPT, LoraShelf
from licht.generate import lora_from
from licht.model.variants import Kind
from tests.support import loras, models
from tests.support.pictures import pixels, reference

PEFT = (".lora_A.weight", ".lora_B.weight")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("loras")
    return {
        "all": loras.write(folder / "all.safetensors", loras.low_rank(loras.OFFICIAL, "diffusion_model.{name}", PEFT)),
        "one": loras.write(folder / "one.safetensors", loras.low_rank(loras.BLOCKS[3:9], "lora_unet_{flat}", PEFT)),
        "partial": loras.write(
            folder / "partial.safetensors",
            loras.low_rank(loras.BLOCKS[:2], "diffusion_model.{name}", PEFT) | {"lora_te1.alpha": torch.ones(())},
        ),
    }


@pytest.fixture(scope="module", params=[Kind.KLEIN, Kind.BASE, Kind.KV])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = models.write_folder(tmp_path_factory.mktemp("model") / "tiny", models.recipe(request.param))
    return Engine(read_folder(folder), Choice("cpu", "float32"), batch_size=2)


def draw(engine: Engine, *uses: LoraUse, seeds: tuple[int, ...] = (1,)) -> list[ImageResult]:
    asked = ImageRequest("a cube", seeds, (reference(),), Size(64, 64), steps=2, loras=uses)
    return [event for event in engine.run(asked) if isinstance(event, ImageResult)]


def test_a_lora_is_switched_per_request(engine: Engine, files: dict[str, Path]) -> None:
    plain = draw(engine)[0]
    changed = draw(engine, LoraUse(files["all"]))[0]
    both = draw(engine, LoraUse(files["all"], 0.5), LoraUse(files["one"], -1.0))[0]
    assert len({plain.picture.rgb, changed.picture.rgb, both.picture.rgb}) == 3
    assert draw(engine)[0].picture == plain.picture
    assert draw(engine, LoraUse(files["all"]))[0].picture == changed.picture
    assert draw(engine, LoraUse(files["all"], 0.0))[0].picture == plain.picture
    assert changed.notes == (
        f"LoRA all.safetensors: {2 * len(loras.OFFICIAL)} of {2 * len(loras.OFFICIAL)} keys applied, strength 1",
    )
    assert plain.notes == ()


def test_every_picture_of_a_batch_gets_it(engine: Engine, files: dict[str, Path]) -> None:
    together = draw(engine, LoraUse(files["all"]), seeds=(1, 2))
    alone = draw(engine, LoraUse(files["all"]), seeds=(2,))[0]
    difference = pixels(together[1].picture).astype(int) - pixels(alone.picture)
    assert abs(difference).max() <= 1  # a batch adds in another order


def test_requests_that_run_in_turns_keep_their_own(engine: Engine, files: dict[str, Path]) -> None:
    expected = [draw(engine, LoraUse(files["all"]))[0].picture, draw(engine)[0].picture]
    asked = ImageRequest("a cube", (1,), (reference(),), Size(64, 64), steps=2)
    runs = [engine.run(replace(asked, loras=uses)) for uses in ((LoraUse(files["all"]),), ())]
    last = list(zip(*runs, strict=True))[-1]
    assert [event.picture for event in last if isinstance(event, ImageResult)] == expected


def test_a_partial_lora_warns_when_it_is_allowed(engine: Engine, files: dict[str, Path]) -> None:
    with pytest.raises(InvalidCheckpoint, match="4 of 5 keys applied"):
        draw(engine, LoraUse(files["partial"]))
    (drawn,) = draw(engine, LoraUse(files["partial"], allow_partial=True))
    assert "4 of 5 keys applied; unknown: lora_te1.alpha" in drawn.warnings[0]


def test_a_missing_file_is_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="there is no LoRA"):
        draw(engine, LoraUse(tmp_path / "none"))


def test_a_file_that_changed_is_read_again(engine: Engine, tmp_path: Path) -> None:
    tensors = loras.low_rank(loras.BLOCKS, "diffusion_model.{name}", PEFT)
    path = loras.write(tmp_path / "a.safetensors", tensors)
    first = draw(engine, LoraUse(path))[0].picture
    loras.write(path, tensors | loras.low_rank(["img_in"], "diffusion_model.{name}", PEFT))
    assert draw(engine, LoraUse(path))[0].picture != first


def test_the_shelf_forgets_what_was_not_used_for_longest(tmp_path: Path) -> None:
    shelf = LoraShelf(models.TRANSFORMER)
    network = models.transformer()
    tensors = loras.low_rank(loras.BLOCKS[:1], "diffusion_model.{name}", PEFT)
    uses = [LoraUse(loras.write(tmp_path / f"{number}.safetensors", tensors)) for number in range(KEPT + 1)]
    for use in uses:
        shelf.read([use])
        shelf.beside(network, [[use]])
    assert len(shelf.adapters.names) == KEPT
    assert not any("/0.safetensors" in name for name in shelf.adapters.names)
    assert len(shelf.beside(network, [uses])) == 1


def test_rows_of_one_batch(files: dict[str, Path]) -> None:
    shelf, network = LoraShelf(models.TRANSFORMER), models.transformer()
    rows = shelf.beside(network, [[LoraUse(files["all"])], [], [LoraUse(files["one"], 2.0)]])
    assert [list(row.values()) for row in rows] == [[1.0], [], [2.0]]


def test_how_a_lora_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a:0.5"
    assert lora_from(f"{path}") == LoraUse(tmp_path / "a", 0.5)
    assert lora_from(f"{path}:-2", allow_partial=True) == LoraUse(path, -2.0, True)
    path.write_bytes(b"")
    assert lora_from(str(path)) == LoraUse(path)
    assert lora_from("C:name") == LoraUse(Path("C:name"))
    for strength in ("nan", "11", "-inf"):
        with pytest.raises(InvalidRequest, match="out of range"):
            lora_from(f"x:{strength}")


def test_a_request_names_a_lora_once() -> None:
    with pytest.raises(InvalidRequest, match="named twice"):
        ImageRequest("a", (1,), loras=(LoraUse(Path("a")), LoraUse(Path("a"), 0.5)))
    with pytest.raises(InvalidRequest, match="at most 16"):
        ImageRequest("a", (1,), loras=tuple(LoraUse(Path(str(n))) for n in range(17)))
