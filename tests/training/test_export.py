import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import licht
from licht.checkpoint.folder import read_folder
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.checkpoint.save import official_tensors
from licht.cli.main import run as command
from licht.core.errors import InvalidSettings, OutputFailed
from licht.model.variants import Kind
from licht.training.autoencoder import AutoencoderModule
from licht.training.card import Figures
from licht.training.config import Task
from licht.training.ema import EMA
from licht.training.export import SHARD_BYTES, Release, export_run
from licht.training.flow import FlowNetworks
from licht.training.history import account_of, history
from licht.training.state import checkpoints, read_tensors, save_state
from licht.training.trained import open_autoencoder, trained_autoencoder
from tests.training.runs import autoencoder_run, flow_run

PLACE = Placement(torch.device("cpu"), torch.float32)
EXACT = Release()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    autoencoder_run(folder / "vae")
    flow_run(folder / "base", folder / "vae")
    flow_run(folder / "dev", folder / "vae", Task.GUIDANCE)
    flow_run(folder / "steps", folder / "vae", Task.STEPS)
    return folder


@pytest.fixture(scope="module")
def base(runs: Path) -> Path:
    export_run(runs / "base", runs / "nano-base", {}, EXACT)
    return runs / "nano-base"


def test_an_exported_autoencoder_whitens_with_measured_statistics(runs: Path, tmp_path: Path) -> None:
    trained = trained_autoencoder(runs / "vae")
    export_run(runs / "vae", tmp_path / "out", {}, EXACT)
    exported = open_autoencoder(tmp_path / "out")
    statistics, kept = dict(exported.bn.named_buffers()), dict(trained.bn.named_buffers())
    assert torch.equal(statistics["running_mean"], kept["running_mean"])
    assert torch.equal(statistics["running_var"], kept["running_var"])
    assert not torch.allclose(statistics["running_var"], torch.ones(()), atol=0.05)
    for name, parameter in trained.named_parameters():
        assert torch.equal(exported.get_parameter(name), parameter.bfloat16().float()), name


def test_statistics_whiten_the_pictures_they_were_measured_on(runs: Path) -> None:
    from licht.training.rendered import mixed_pictures

    trained = trained_autoencoder(runs / "vae")
    image = mixed_pictures(0)(0, 64).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        flat = trained.encode(image).transpose(0, 1).flatten(1)
    assert flat.mean(1).abs().max() < 0.01
    deviation = dict(trained.bn.named_buffers())["running_var"].double().sqrt()
    expected = deviation / (deviation.square() + trained.config.batch_norm_eps).sqrt()
    assert torch.allclose(flat.double().std(1), expected, atol=0.01)


def test_statistics_are_measured_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_autoencoder(runs / "vae")
    monkeypatch.setattr("licht.training.trained.measure_statistics", None)
    trained_autoencoder(runs / "vae")


def test_every_exported_weight_is_the_average_in_bfloat16(runs: Path, base: Path) -> None:
    files = read_folder(base)
    averages = read_tensors(checkpoints(runs / "base")[-1] / "state.safetensors", "ema/")
    transformer = load_transformer(files.transformer, PLACE, files.transformer_config)
    tower = load_tower(files.tower, PLACE, files.variant.text)
    found = {f"transformer.{name}": tensor for name, tensor in _whole_state(transformer).items()}
    found |= {f"tower.{name}": tensor for name, tensor in tower.state_dict().items()}
    assert found.keys() == averages.keys()
    for name, tensor in averages.items():
        assert torch.equal(found[name], tensor.bfloat16().float()), name
    load_autoencoder(files.autoencoder, PLACE, files.autoencoder_config)


def _whole_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    from licht.checkpoint.save import official_tensors

    return official_tensors(module)


def test_an_exported_model_says_what_it_is_and_draws(base: Path) -> None:
    variant = read_folder(base).variant
    assert (variant.kind, variant.caches_references, variant.default_guidance) == (Kind.BASE, True, 3.0)
    assert variant.text.layers == (1, 2, 3)
    assert variant.text.tower.num_layers == 4
    assert variant.single_reference_px == variant.extra_reference_px == 128 * 128
    model = licht.load(base, policy="off")
    first = model.generate("a red sphere", seed=1, steps=2)[0]
    assert (first.width, first.height) == (128, 128)
    edited = model.generate("make it blue", images=first.image, seed=1, steps=2)[0]
    assert edited.drawn.picture != first.drawn.picture


@pytest.mark.parametrize(("name", "kind"), [("dev", Kind.DEV), ("steps", Kind.KV)])
def test_distilled_runs_become_their_kinds(runs: Path, tmp_path: Path, name: str, kind: Kind) -> None:
    export_run(runs / name, tmp_path / name, {}, EXACT)
    variant = read_folder(tmp_path / name).variant
    assert variant.kind is kind
    assert variant.transformer.guidance_embed is (kind is Kind.DEV)
    assert variant.takes_guidance is (kind is Kind.DEV)
    assert licht.load(tmp_path / name, policy="off").generate("a cube", seed=0, steps=1)[0].width == 128


def test_shards_stay_small_and_the_card_tells_figures(runs: Path, tmp_path: Path) -> None:
    figures = Figures("t2i", 500, {"one_object": (0.9612, 0.94, 0.975)})
    written = export_run(runs / "base", tmp_path / "out", {}, Release(steps=12, guidance=2.5, figures=(figures,)))
    assert all(path.stat().st_size <= SHARD_BYTES for path in written)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "| t2i | one_object | 0.9612 | 0.94 to 0.975 | 500 |" in card
    assert "7 of 400 steps" in card
    assert "10 minutes" in card
    described = json.loads((tmp_path / "out" / "licht.json").read_text("utf-8"))
    assert (described["default_steps"], described["default_guidance"]) == (12, 2.5)


def test_the_card_counts_the_runs_before(runs: Path, tmp_path: Path) -> None:
    flow_run(tmp_path / "later", runs / "vae", Task.STEPS, start_from=str(runs / "base"))
    export_run(tmp_path / "later", tmp_path / "out", {}, EXACT)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "7 of 400 steps of 16 rows; started from `nano_smoke`, 7 of 400 steps of 16 rows |" in card
    assert "20 minutes (10 + 10) |" in card
    assert ", in the last of its runs |" in card
    assert "| autoencoder's training | 2 minutes |" in card


def test_the_card_tells_of_a_teacher(runs: Path, tmp_path: Path) -> None:
    start = str(runs / "base")
    flow_run(tmp_path / "teacher", runs / "vae", Task.GUIDANCE, start_from=start)
    flow_run(tmp_path / "student", runs / "vae", Task.STEPS, start_from=start, teacher_from=str(tmp_path / "teacher"))
    export_run(tmp_path / "student", tmp_path / "out", {}, EXACT)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    told = "`nano_smoke`, 7 of 400 steps of 16 rows; 10 minutes more; started from the same run"
    assert f"| teacher | {told} |" in card


def test_what_a_student_started_from_is_no_teacher_of_its_own(runs: Path, tmp_path: Path) -> None:
    start = str(runs / "base")
    flow_run(tmp_path / "student", runs / "vae", Task.STEPS, start_from=start, teacher_from=start)
    export_run(tmp_path / "student", tmp_path / "out", {}, EXACT)
    assert "teacher" not in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_what_a_teacher_started_from_is_named(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "a-model" / "transformer").mkdir(parents=True)
    flow_run(tmp_path / "teacher", runs / "vae", Task.GUIDANCE, start_from=str(tmp_path / "a-model"))
    start, teacher = str(runs / "base"), str(tmp_path / "teacher")
    flow_run(tmp_path / "student", runs / "vae", Task.STEPS, start_from=start, teacher_from=teacher)
    export_run(tmp_path / "student", tmp_path / "out", {}, EXACT)
    told = "; started from `a-model` as it was then; 10 minutes, after those of `a-model` more |"
    assert told in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_an_autoencoder_goes_on_from_that_of_a_model_folder(base: Path, tmp_path: Path) -> None:
    autoencoder_run(tmp_path / "later", start_from=str(base))
    found, kept = history(tmp_path / "later", {}), account_of(base)
    assert kept is not None
    assert kept.autoencoder is not None
    assert (found.legs[1:], found.origin) == (kept.autoencoder.legs, None)


@pytest.mark.parametrize("start", ["a-model", "gone"])
def test_a_start_that_is_no_run_is_named(runs: Path, tmp_path: Path, start: str) -> None:
    (tmp_path / "a-model" / "transformer").mkdir(parents=True)
    flow_run(tmp_path / "later", runs / "vae", start_from=str(tmp_path / start))
    found = history(tmp_path / "later", {})
    assert (len(found.legs), found.origin) == (1, start)
    export_run(tmp_path / "later", tmp_path / "out", {}, EXACT)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert f"started from `{start}` as it was then |" in card
    assert f"10 minutes, after those of `{start}` |" in card
    assert str(tmp_path) not in card


def test_runs_that_started_from_each_other_end(runs: Path, tmp_path: Path) -> None:
    flow_run(tmp_path / "one", runs / "vae", start_from=str(tmp_path / "two"))
    flow_run(tmp_path / "two", runs / "vae", start_from=str(tmp_path / "one"))
    assert len(history(tmp_path / "one", {}).legs) == 2


def test_another_decoder_of_the_same_latents_can_be_exported(runs: Path, base: Path, tmp_path: Path) -> None:
    recipe = autoencoder_run(tmp_path / "other", seed=4)
    with pytest.raises(InvalidSettings, match="makes other latents than"):
        export_run(runs / "base", tmp_path / "out", {}, Release(autoencoder=tmp_path / "other"))
    assert not (tmp_path / "out").exists()
    going_on = replace(recipe, autoencoder=replace(recipe.autoencoder, decoder_only=True), start_from=str(runs / "vae"))
    decoder = open_autoencoder(runs / "vae")
    assert decoder.decoder.conv_out.bias is not None
    with torch.no_grad():
        decoder.decoder.conv_out.bias.add_(1)
    module = AutoencoderModule(decoder, going_on.autoencoder)
    save_state(tmp_path / "decoder", 3, module, EMA(module, 0.9), [], going_on, seconds=600.0)
    arguments = ["export", str(runs / "base"), str(tmp_path / "out")]
    assert command([*arguments, "--autoencoder", str(tmp_path / "decoder")]) == 0
    found, before = open_autoencoder(tmp_path / "out"), open_autoencoder(base)
    for name, tensor in found.state_dict().items():
        moved = 1 if name == "decoder.conv_out.bias" else 0
        assert torch.allclose(tensor, before.state_dict()[name] + moved, atol=1e-2 * moved), name
    assert "| autoencoder's training | 12 minutes (2 + 10) |" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_equal_parts_are_linked(runs: Path, base: Path) -> None:
    export_run(runs / "base", runs / "twin", {}, Release(share=base))
    weights = runs / "twin" / "text_encoder" / "model.safetensors"
    assert weights.is_symlink()
    assert weights.samefile(base / "text_encoder" / "model.safetensors")
    assert not any(path.is_symlink() for path in (runs / "twin" / "transformer").iterdir())
    export_run(runs / "dev", runs / "sibling", {}, Release(share=base))
    assert (runs / "sibling" / "tokenizer" / "tokenizer.json").is_symlink()
    assert not any(path.is_symlink() for path in (runs / "sibling" / "text_encoder").iterdir())
    assert read_folder(runs / "twin").variant.kind is Kind.BASE


def test_a_transformer_can_be_stored_in_fewer_bits(runs: Path, base: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    assert command(["export", str(runs / "base"), str(small), "--quant", "int8", "--share", str(base)]) == 0
    with safe_open(small / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as stored:
        dtypes = {stored.get_tensor(name).dtype for name in stored.keys()}  # noqa: SIM118 # not a mapping
    assert dtypes == {torch.int8, torch.float32, torch.bfloat16}
    assert (small / "text_encoder" / "model.safetensors").is_symlink()
    exact, found = read_folder(base), read_folder(small)
    assert replace(found.variant, name=exact.variant.name) == exact.variant
    whole, told = (load_transformer(files.transformer, PLACE, files.transformer_config) for files in (exact, found))
    for name, parameter in official_tensors(whole).items():
        owner, _, leaf = name.rpartition(".")
        near = getattr(told.get_submodule(owner), leaf)
        assert (near - parameter).abs().max() <= parameter.abs().max() / 127, name


def test_modulation_and_embedders_can_be_stored_in_fewer_bits_too(runs: Path, base: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    export_run(runs / "base", small, {}, Release(quant="q4", quant_outside="int8"))
    with safe_open(small / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as stored:
        dtypes = {name: stored.get_tensor(name).dtype for name in stored.keys()}  # noqa: SIM118 # not a mapping
    assert dtypes["single_stream_modulation.linear.weight"] is torch.int8
    assert dtypes["context_embedder.weight"] is torch.int8
    assert dtypes["single_transformer_blocks.0.attn.to_out.weight"] is torch.uint8
    assert dtypes["norm_out.linear.weight"] is dtypes["proj_out.weight"] is torch.bfloat16
    exact, found = read_folder(base), read_folder(small)
    whole, told = (load_transformer(files.transformer, PLACE, files.transformer_config) for files in (exact, found))
    for name in ("single_stream_modulation.lin", "double_stream_modulation_txt.lin", "txt_in", "time_in.out_layer"):
        parameter, near = (getattr(each.get_submodule(name), "weight") for each in (whole, told))  # noqa: B009
        assert 0 < (near - parameter).abs().max() <= parameter.abs().max() / 127, name
    card = (small / "README.md").read_text("utf-8")
    assert "q4 (the transformer's large matrices), int8 (the transformer's modulation and embedders), bfloat16" in card
    plain = tmp_path / "plain"
    assert "`licht convert` with `--to diffusers --quant none` makes" in card
    assert command(["convert", str(small), str(plain), "--to", "diffusers", "--quant", "none"]) == 0
    with safe_open(plain / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as stored:
        opened = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 # not a mapping
    assert {tensor.dtype for tensor in opened.values()} == {torch.bfloat16}
    used = load_transformer(found.transformer, replace(PLACE, dtype=torch.bfloat16), found.transformer_config)
    assert torch.equal(opened["context_embedder.weight"], getattr(used.get_submodule("txt_in"), "weight"))  # noqa: B009


def test_a_few_step_model_takes_the_steps_that_it_was_distilled_to(runs: Path, tmp_path: Path) -> None:
    recipe = flow_run(tmp_path / "two", runs / "vae", Task.STEPS)
    recipe = replace(recipe, distil=replace(recipe.distil, steps=2))
    module = FlowNetworks(recipe.networks)
    save_state(tmp_path / "two", 8, module, EMA(module, 0.9), [], recipe, devices=["2 x a GPU", "one CPU core"])
    export_run(tmp_path / "two", tmp_path / "out", {}, EXACT)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "step-distilled: 2 steps, no guidance" in card
    assert "| trained on | 2 x a GPU, one CPU core, 0 minutes |" in card
    assert json.loads((tmp_path / "out" / "licht.json").read_text("utf-8"))["default_steps"] == 2


def test_what_cannot_be_exported_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidSettings, match="holds no checkpoint"):
        export_run(tmp_path, tmp_path / "out", {}, EXACT)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(InvalidSettings, match="is not empty"):
        export_run(runs / "base", tmp_path / "taken", {}, EXACT)
    assert command(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    with pytest.raises(InvalidSettings, match="'int7' is unknown"):
        export_run(runs / "base", tmp_path / "out", {}, Release(quant="int7"))
    with pytest.raises(InvalidSettings, match=r"quant, autoencoder: only for a flow model.* trains autoencoder"):
        export_run(runs / "vae", tmp_path / "out", {}, Release(quant="q4", autoencoder=runs / "vae"))
    with pytest.raises(InvalidSettings, match="is no model folder to share parts with"):
        export_run(runs / "base", tmp_path / "out", {}, Release(share=tmp_path / "gone"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "figures.json").write_text("{}")
    arguments = ["export", str(runs / "base"), str(tmp_path / "out"), "--figures", str(tmp_path / "figures.json")]
    assert command(arguments) == 2
    assert "is not what `licht eval --json` prints" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_behind(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("licht.training.export.write_json", full)
    with pytest.raises(OutputFailed, match="No space left"):
        export_run(runs / "base", tmp_path / "out", {}, EXACT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_diffusers_draws_the_same_with_an_exported_model(base: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    pipeline = diffusers.Flux2KleinPipeline.from_pretrained(base, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt="a large red sphere",
        height=128,
        width=128,
        num_inference_steps=3,
        guidance_scale=3.0,
        max_sequence_length=24,
        text_encoder_out_layers=(1, 2, 3),
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    ours = licht.load(base, policy="off").generate("a large red sphere", seed=5, steps=3, guidance=3.0)[0].image
    difference = np.abs(np.asarray(theirs, np.int16) - np.asarray(ours, np.int16)).max()
    assert np.asarray(ours).std() > 5
    assert difference <= 1


def test_a_model_folder_keeps_its_history_for_those_that_start_from_it(runs: Path, tmp_path: Path) -> None:
    flow_run(tmp_path / "teacher", runs / "vae", Task.GUIDANCE, start_from=str(runs / "base"))
    start, teacher = str(runs / "base"), str(tmp_path / "teacher")
    flow_run(tmp_path / "student", runs / "vae", Task.STEPS, start_from=start, teacher_from=teacher)
    export_run(tmp_path / "student", tmp_path / "model", {}, EXACT)
    kept = account_of(tmp_path / "model")
    assert kept is not None
    assert [leg.seconds for leg in kept.networks.legs] == [600.0, 600.0]
    assert kept.autoencoder is not None
    flow_run(tmp_path / "later", tmp_path / "model", Task.STEPS, start_from="a-model")
    export_run(tmp_path / "later", tmp_path / "out", {"a-model": tmp_path / "model"}, EXACT)
    after = account_of(tmp_path / "out")
    assert after is not None
    assert after.networks.legs[1:] == kept.networks.legs
    assert (after.networks.origin, after.autoencoder, after.teacher) == (None, kept.autoencoder, kept.teacher)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "30 minutes (10 + 10 + 10) |" in card
    assert "| autoencoder's training | 2 minutes |" in card
    assert "| teacher | `nano_smoke`, 7 of 400 steps" in card


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"networks": {"legs": [{"name": "x"}], "origin": null}}', "{}"])
def test_a_history_that_is_none_is_refused(runs: Path, tmp_path: Path, text: str) -> None:
    export_run(runs / "base", tmp_path / "model", {}, EXACT)
    (tmp_path / "model" / "training.json").write_text(text, "utf-8")
    flow_run(tmp_path / "later", runs / "vae", start_from=str(tmp_path / "model"))
    with pytest.raises(InvalidSettings, match=r"training\.json tells no history"):
        history(tmp_path / "later", {})


def test_a_polished_model_is_a_few_step_model_and_tells_of_its_critic(runs: Path, tmp_path: Path) -> None:
    critic = str(tmp_path / "critic")
    flow_run(tmp_path / "critic", runs / "vae", Task.CRITIC, start_from=str(runs / "base"))
    recipe = flow_run(
        tmp_path / "polished", runs / "vae", Task.POLISH, start_from=str(runs / "steps"), critic_from=critic
    )
    assert recipe.polish.critic_from == critic
    export_run(tmp_path / "polished", tmp_path / "out", {}, EXACT)
    described = json.loads((tmp_path / "out" / "licht.json").read_text("utf-8"))
    assert (described["kind"], described["default_steps"]) == (Kind.KV.value, 4)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "| critic | `nano_smoke`, 7 of 400 steps of 16 rows; 10 minutes more |" in card
