import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from licht.checkpoint.folder import read_folder
from licht.core.errors import DoesNotFit, InvalidRequest, NotAvailable
from licht.core.request import ImageRequest, ImageResult, LoraUse
from licht.core.sizes import Size
from licht.engine import fit, memory
from licht.engine.calibrate import calibrate, calibration_file, machine
from licht.engine.engine import Choice, Engine
from licht.engine.memory import free_memory_bytes
from licht.model.variants import Kind, TextConfig
from licht.plan.plan import CPU, Residency, choose
from licht.quant.int8 import Int8Linear
from licht.quant.linear import QuantisedLinear
from tests.support import loras, models, packed
from tests.support.pictures import pixels, reference

CPU_DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_folder(tmp_path_factory.mktemp("model") / "tiny", models.recipe(Kind.KV))


def engine(folder: Path, **choice: object) -> Engine:
    return Engine(read_folder(folder), Choice("cpu", "float32", **choice), batch_size=2)  # type: ignore[arg-type]


def draw(engine: Engine, seeds: tuple[int, ...] = (1, 2, 3), **more: object) -> list[ImageResult]:
    asked = ImageRequest("a cube", seeds, (reference(),), Size(64, 64), steps=2, **more)  # type: ignore[arg-type]
    return [event for event in engine.run(asked) if isinstance(event, ImageResult)]


def with_memory(monkeypatch: pytest.MonkeyPatch, residency: Residency) -> None:
    """Just as much memory as this residency needs."""
    real = choose

    def chosen(*args: object) -> object:
        variant, request, here, *rest = args
        for room in (2**40, *(CPU.overhead_bytes + 2**16 * n for n in range(200, 0, -1))):
            plan = real(variant, request, replace(here, memory_bytes=room), *rest)  # type: ignore[arg-type, type-var]
            if plan.fits and plan.setup.residency is residency:
                return plan
        raise AssertionError(f"nothing makes the plan {residency}")

    monkeypatch.setattr(fit, "choose", chosen)


@pytest.mark.parametrize("residency", [Residency.IN_TURN, Residency.STREAMED])
def test_less_memory_draws_the_same(folder: Path, residency: Residency, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = draw(engine(folder))
    with_memory(monkeypatch, residency)
    small = engine(folder)
    found = draw(small)
    for one, other in zip(found, expected, strict=True):
        assert one.seed == other.seed
        difference = pixels(one.picture).astype(int) - pixels(other.picture)
        assert abs(difference).max() <= 1
    assert (small._transformer, small._tower, small._autoencoder) == (None, None, None)


def test_what_stays_loaded_when_there_is_room(folder: Path) -> None:
    roomy = engine(folder)
    draw(roomy)
    assert roomy._transformer is not None
    assert roomy._tower is not None


def test_a_request_that_does_not_fit_is_refused_before_anything_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "free_memory_bytes", lambda device: 1000)
    small = engine(folder)
    with pytest.raises(DoesNotFit, match=r"tiny at 64x64 needs .* see licht plan") as raised:
        draw(small)
    assert raised.value.exit_code == 3
    assert any("does NOT fit" in line for line in raised.value.table)
    assert (small._transformer, small._tower) == (None, None)
    assert len(draw(engine(folder, ignore_plan=True), seeds=(1,))) == 1


def test_quantising_on_loading_draws_nearly_the_same(tmp_path: Path) -> None:
    text = TextConfig(replace(models.QWEN, hidden_size=32, intermediate_size=64), (1, 2, 3), 24)
    made = replace(models.recipe(Kind.KLEIN), transformer=packed.SIZES, text=text)
    wide = models.write_folder(tmp_path / "wide", made)
    exact = draw(engine(wide), seeds=(1,))[0]
    small = engine(wide, quant="int8")
    found = draw(small, seeds=(1,))[0]
    assert any(isinstance(layer, QuantisedLinear) for layer in small.transformer.modules())
    assert any(isinstance(layer, QuantisedLinear) for layer in small.tower.modules())
    difference = pixels(found.picture).astype(int) - pixels(exact.picture)
    assert 0 < abs(difference).mean() < 4
    brief = engine(wide, quant="int8")
    brief._in_turn = True
    for one, turns in ((small, True), (brief, False)):  # a tower that soon goes is not worth rearranging
        assert {layer.turns for layer in one.tower.modules() if isinstance(layer, Int8Linear)} == {turns}
    path = loras.write(
        tmp_path / "l",
        {
            "double_blocks.0.img_attn.qkv.lora_A.weight": torch.ones(2, 64) / 8,
            "double_blocks.0.img_attn.qkv.lora_B.weight": torch.ones(192, 2) / 8,
        },
    )
    assert draw(small, seeds=(1,), loras=(LoraUse(path),))[0].picture != found.picture
    with pytest.raises(InvalidRequest, match="'fp7' is unknown"):
        engine(wide, quant="fp7")


def test_rates_are_measured_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("licht.engine.calibrate._WIDTH", 64)
    calibration_file().unlink(missing_ok=True)
    default = machine(CPU_DEVICE, 10)
    assert not default.measured
    assert default.memory_bytes == 10
    found = calibrate(CPU_DEVICE)
    assert found.kept
    assert min(found.rates.values()) > 0
    measured = machine(CPU_DEVICE, 10)
    assert measured.measured
    assert measured.operations_per_s["bfloat16"] == pytest.approx(found.rates["bfloat16"])
    assert measured.dequantised_per_s == pytest.approx(found.rates["dequantised"])
    assert set(measured.native) == found.rates.keys() - {"float32", "bfloat16", "dequantised"}
    calibration_file().write_text("[1]", encoding="utf-8")
    assert not machine(CPU_DEVICE, 10).measured
    calibration_file().unlink()


def test_a_calibration_without_a_place_serves_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("licht.engine.calibrate._WIDTH", 64)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("licht.engine.calibrate.calibration_file", lambda: tmp_path / "file" / "calibration.json")
    found = calibrate(CPU_DEVICE)
    assert not found.kept
    assert not machine(CPU_DEVICE, 10).measured
    assert machine(CPU_DEVICE, 10, found.rates).measured


def test_a_calibration_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr("licht.engine.calibrate._measured", fail)
    with pytest.raises(NotAvailable, match=r"cpu cannot be measured \(no room\); plans go by default rates"):
        calibrate(CPU_DEVICE)


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.max": "max\n", "memory.current": "5", "memory.stat": ""}, sys.maxsize),
        ({}, sys.maxsize),
        (
            {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "inactive_file 50\nactive_file 30\n"},
            380,
        ),
        ({"memory.max": "100", "memory.current": "700", "memory.stat": "inactive_file 0\nactive_file 0\n"}, 0),
    ],
)
def test_what_a_container_may_take(files: dict[str, str], left: int, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, "ascii")
    assert memory._left_in_group_bytes(tmp_path) == left


def test_a_limit_in_the_environment_is_respected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICHT_MEMORY", "1MiB")
    assert free_memory_bytes(CPU_DEVICE) == 2**20
    small = engine(folder)
    with pytest.raises(DoesNotFit):
        draw(small)
    monkeypatch.setenv("LICHT_MEMORY", "lots")
    with pytest.raises(InvalidRequest, match="use for example 12GiB"):
        draw(small)


def test_free_memory_is_a_sensible_amount() -> None:
    assert 2**20 < free_memory_bytes(CPU_DEVICE) < 2**50
