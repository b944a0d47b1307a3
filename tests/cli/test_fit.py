"""`licht plan`, `licht convert`, and the options of `licht generate` that make a model fit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from licht.cli.main import run
from licht.engine import fit
from tests.cli.conftest import Licht
from tests.support import loras

PEFT = (".lora_A.weight", ".lora_B.weight")


def test_a_plan_is_printed_without_torch() -> None:
    script = (
        "import sys; from licht.cli.main import run; code = run(['plan', 'dev', '--memory', '16GiB']);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dev: 1 x 1024x1024 (bfloat16, streamed, decoder in bands)" in done.stdout
    assert "fits: at most 7.0 GiB of 16.0 GiB are in use at a time" in done.stdout


def test_a_plan_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "klein-4b", "--size", "1024x1024", "--images", "3", "--memory", "12GiB", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["fits"] is True
    assert said["peak_bytes"] <= said["memory_bytes"] == 12 * 2**30
    assert [stage["stage"] for stage in said["stages"]][:2] == ["encode_prompt", "encode_references"]


def test_a_plan_that_cannot_be_has_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "dev", "--memory", "1GiB"]) == 3
    assert "does NOT fit" in capsys.readouterr().out


def test_a_calibration_that_fails_leaves_the_defaults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("licht.engine.calibrate._measured", fail)
    assert run(["plan", "klein-4b", "--device", "cpu", "--memory", "64GiB", "--calibrate"]) == 0
    said = capsys.readouterr()
    assert "cpu cannot be measured (no room); plans go by default rates" in said.err
    assert "rates are assumed" in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dev", "--memory", "lots"], "use for example 12GiB"),
        (["dev", "--quant", "gguf-q8_0"], "quant 'gguf-q8_0' is unknown; use one of none, fp8, int8, q4, nvfp4"),
        (["dev", "--dtype", "float16"], "dtype 'float16' is unknown; use float32 or bfloat16"),
        (["nothing-of-the-kind", "--memory", "1GiB"], "there is no model"),
        (["dev", "--size", "17x17"], "too small"),
    ],
)
def test_a_wrong_plan_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_plan_of_a_folder(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(tiny), "--device", "cpu"]) == 0
    assert "tiny: 1 x 128x64 (bfloat16, resident)" in capsys.readouterr().out


def test_loras_are_part_of_a_plan(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = loras.low_rank(loras.BLOCKS, "diffusion_model.{name}", PEFT)
    file = loras.write(tmp_path / "style.safetensors", tensors)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    said = {}
    for device, kept in (("cpu", 4), ("gpu", 0)):  # main memory holds what was read, too
        asked = ["plan", str(tiny), "--device", device, "--memory", "8GiB", "--lora", f"{file}:0.5", "--json"]
        assert run(asked) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["loras"] == [f"LoRA style.safetensors: {len(tensors)} of {len(tensors)} keys applied, strength 0.5"]
        assert said["stages"][1]["parts_bytes"]["LoRA"] == numbers * (2 + kept)
    assert run(["plan", "dev", "--memory", "8GiB", "--lora", str(file)]) == 2
    assert "made for another variant" in capsys.readouterr().err
    assert run(["plan", "dev", "--memory", "8GiB", "--lora", str(tmp_path / "none.safetensors")]) == 2
    assert "there is no LoRA" in capsys.readouterr().err


def test_the_plan_of_a_single_file(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = Path(shutil.copy(next((tiny / "transformer").glob("*.safetensors")), tmp_path))
    shutil.copy(tiny / "licht.json", tmp_path)
    assert run(["plan", str(moved), "--device", "cpu"]) == 2
    assert "name one with --vae" in capsys.readouterr().err
    beside = ["--vae", str(tiny / "vae"), "--text-encoder", str(tiny / "text_encoder")]
    assert run(["plan", str(moved), *beside, "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True


def test_converting_and_drawing_with_the_result(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", str(tiny), str(tmp_path / "out"), "--to", "bfl", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [Path(file["path"]).stat().st_size for file in files] == [file["bytes"] for file in files]
    picture = tmp_path / "a.png"
    drawn = ["generate", "a cat", "--seed", "1", "--policy", "off"]
    assert run([*drawn, "-m", str(tmp_path / "out"), "-o", str(picture)]) == 0
    assert run([*drawn, "-m", str(tiny), "-o", str(tmp_path / "b.png")]) == 0
    assert Image.open(picture).tobytes() == Image.open(tmp_path / "b.png").tobytes()
    capsys.readouterr()
    assert run(["convert", str(tiny), str(tmp_path / "out")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert run(["convert", str(tiny), str(tmp_path / "other"), "--to", "keras"]) == 2
    assert "use --to bfl or --to diffusers" in capsys.readouterr().err


def test_loras_on_the_command_line(generate: Licht, here: Path) -> None:
    tensors = loras.low_rank(loras.BLOCKS, "diffusion_model.{name}", PEFT)
    loras.write(here / "style.safetensors", tensors)
    plain, whole, half = (here / f"{name}.png" for name in ("plain", "whole", "half"))
    assert generate("a cat", "--seed", "5", "-o", str(plain)).err == ""
    outcome = generate("a cat", "--seed", "5", "--lora", "style.safetensors", "-o", str(whole))
    assert outcome.err == f"LoRA style.safetensors: {len(tensors)} of {len(tensors)} keys applied, strength 1\n"
    assert generate("a cat", "--seed", "5", "--lora", "style.safetensors:0.5", "-o", str(half)).code == 0
    assert len({Image.open(path).tobytes() for path in (plain, whole, half)}) == 3
    loras.write(here / "odd.safetensors", {**tensors, "lora_te.alpha": torch.ones(())})
    assert "keys applied; unknown: lora_te.alpha" in generate("a cat", "--lora", "odd.safetensors").error
    allowed = generate("a cat", "--lora", "odd.safetensors", "--allow-partial-lora")
    assert allowed.code == 0
    assert allowed.err.startswith("warning: LoRA odd.safetensors")
    assert "there is no LoRA" in generate("a cat", "--lora", "none.safetensors").error


def test_what_does_not_fit_is_refused_with_the_plan(generate: Licht, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "free_memory_bytes", lambda device: 1000)
    outcome = generate("a cat")
    assert outcome.code == 3
    assert "does NOT fit" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: tiny at 128x64 needs")
    assert generate("a cat", "--ignore-plan").code == 0
