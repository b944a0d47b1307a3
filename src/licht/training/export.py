"""From a run to a model folder in the diffusers layout: averaged weights, small shards, a card.

Weights are in bfloat16; the large matrices of the transformer in fewer bits if asked.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from licht.checkpoint.convert import FORMATS, Forms, write_network
from licht.checkpoint.detect import Layout
from licht.checkpoint.save import Target, save_network, write_json
from licht.core.errors import InvalidSettings
from licht.model.autoencoder import Autoencoder
from licht.model.text import RMSNorm, TextTower
from licht.model.transformer import Flux2Transformer
from licht.model.variants import AutoencoderConfig, Kind, TextConfig, TransformerConfig
from licht.training.build import text_config, transformer_config
from licht.training.card import Facts, Figures, model_card
from licht.training.config import Recipe, Source, Task
from licht.training.files import not_written
from licht.training.folder import with_settled_rows
from licht.training.history import KEPT, Account, History, account_of, history
from licht.training.state import checkpoints, newest_checkpoint, read_recipe, read_tensors
from licht.training.trained import (
    autoencoder_folder,
    latents_digest,
    named_folder,
    open_autoencoder,
    trained_autoencoder,
)

SHARD_BYTES = 15 * 2**20
_WEIGHTS = "diffusion_pytorch_model"
_DIFFUSERS, _TRANSFORMERS = "0.38.0", "5.0.0"
"""Releases that know the classes which the configurations name."""
KINDS: Mapping[Task, Kind] = {
    Task.FLOW: Kind.BASE,
    Task.GUIDANCE: Kind.DEV,
    Task.STEPS: Kind.KV,
    Task.POLISH: Kind.KV,
}
"""Tasks that train models which draw, and what these are."""
QUANTS = tuple(form for form in FORMATS if not form.startswith("gguf"))
_USUAL_STEPS = 20
_SHARED = ("vae", "text_encoder", "tokenizer")


@dataclass(frozen=True, slots=True)
class Release:
    """What an exported model says of itself beyond its run. None takes what suits its kind."""

    steps: int | None = None
    guidance: float | None = None
    figures: tuple[Figures, ...] = ()
    share: Path | None = None
    """A model folder: the files of parts that are equal to its own become links to them."""
    quant: str = "none"
    """What the large matrices of the transformer's blocks are stored in: one of `QUANTS`."""
    quant_outside: str = "none"
    """The same for its modulation and embedders."""
    autoencoder: Path | None = None
    """Run or model folder of an autoencoder with the same latents, to be exported in the place of the recipe's."""


def refuse_release(task: Task, release: Release) -> None:
    """Raises `InvalidSettings` for wishes that only whole models can fulfil, if the task makes none."""
    if task not in KINDS and release != Release():
        asked = [field.name for field in fields(Release) if getattr(release, field.name) != field.default]
        raise InvalidSettings(
            f"{', '.join(asked)}: only for a flow model, and the run trains {task.value}; leave it out", field=asked[0]
        )


def export_run(run: Path, target: Path, known: Mapping[str, Path], release: Release) -> list[Path]:
    """Write the newest averages of `run` to the new folder `target`; returns the files.

    The run of an autoencoder gives `vae/`, any other a whole model. `known` are model folders that a recipe may name.
    Raises `InvalidSettings` for a run without a checkpoint, a folder that is not empty or an unknown format,
    `OutputFailed`.
    """
    recipe = with_settled_rows(run, read_recipe(newest_checkpoint(run)))
    refuse_release(recipe.task, release)
    for field in ("quant", "quant_outside"):
        if (form := getattr(release, field)) not in QUANTS:
            raise InvalidSettings(f"{form!r} is unknown; use one of {', '.join(QUANTS)}", field=field)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidSettings(f"{target} is not empty; name a new folder", field="target")
    share = None if release.share is None else named_folder(str(release.share), known)
    if share is not None and not share.is_dir():
        raise InvalidSettings(f"{share} is no model folder to share parts with; name another", field="share")
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        if recipe.task is Task.AUTOENCODER:
            write_autoencoder(trained_autoencoder(run), partial / "vae")
        else:
            _write_model(run, recipe, partial, known, release)
        if share is not None:
            _link_equal_parts(partial, target, share)
        if target.is_dir():
            target.rmdir()
        partial.rename(target)
    except OSError as error:
        raise not_written(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(path for path in target.rglob("*") if path.is_file())


def write_autoencoder(autoencoder: Autoencoder, folder: Path) -> None:
    """Write a `vae/` folder. Weights in bfloat16; the statistics, a few numbers, stay as exact as they were measured."""
    statistics = {name: value.clone() for name, value in autoencoder.bn.named_buffers()}
    autoencoder.to(torch.bfloat16)
    for name, value in statistics.items():
        setattr(autoencoder.bn, name, value)
    save_network(autoencoder, Target(folder, _WEIGHTS, SHARD_BYTES), Layout.DIFFUSERS)
    write_json(folder / "config.json", autoencoder_json(autoencoder.config))


def _write_model(run: Path, recipe: Recipe, folder: Path, known: Mapping[str, Path], release: Release) -> None:
    checkpoint = newest_checkpoint(run)
    tensors = read_tensors(checkpoint / "state.safetensors", "ema/")
    kind, networks = KINDS[recipe.task], recipe.networks
    transformer = Flux2Transformer(transformer_config(networks, guidance_embed=kind is Kind.DEV))
    _fill(transformer, tensors, "transformer.")
    metadata = {"licht.kind": kind.value}
    target = Target(folder / "transformer", _WEIGHTS, SHARD_BYTES)
    transformer.bfloat16()
    forms = Forms(release.quant, release.quant_outside)
    if forms == Forms():
        save_network(transformer, target, Layout.DIFFUSERS, metadata)
    else:
        path = target.folder / f"{target.stem}.safetensors"
        write_network(transformer, path, Layout.DIFFUSERS, forms, metadata)
    write_json(folder / "transformer" / "config.json", transformer_json(transformer.config))
    _write_tower(text_config(networks), tensors, folder / "text_encoder")
    shutil.copytree(run / "tokenizer", folder / "tokenizer")
    named = _autoencoder(recipe, known, release)
    if (named / "vae").is_dir():
        shutil.copytree(named / "vae", folder / "vae")
    else:
        write_autoencoder(open_autoencoder(named), folder / "vae")
    (folder / "scheduler").mkdir()
    write_json(folder / "scheduler" / "scheduler_config.json", _SCHEDULER)
    write_json(folder / "model_index.json", _model_index(kind))
    description = describe(recipe, kind, release)
    (folder / "licht.json").write_text(json.dumps(description) + "\n", "utf-8")
    account = _account(run, recipe, named, known)
    write_json(folder / KEPT, account.as_json())
    facts = Facts(description, recipe, account, release.figures, _stored(forms))
    (folder / "README.md").write_text(model_card(kind, facts), "utf-8")


def _account(run: Path, recipe: Recipe, autoencoder: Path, known: Mapping[str, Path]) -> Account:
    """All that was trained for the model, as far as runs and model folders tell."""
    start = None if recipe.start_from is None else account_of(named_folder(recipe.start_from, known))
    kept = account_of(autoencoder)
    encoded = _trained(autoencoder, known) if kept is None else kept.autoencoder
    teacher = None if start is None else start.teacher
    if recipe.teacher_from is not None:
        teacher = _trained(named_folder(recipe.teacher_from, known), known)
    critic = recipe.polish.critic_from if recipe.task is Task.POLISH else None
    judged = None if critic is None else _trained(named_folder(critic, known), known)
    carried = None if start is None else start.carried
    if recipe.carry.learned_by is not None:
        carried = _trained(named_folder(recipe.carry.learned_by, known), known)
    return Account(history(run, known), encoded, teacher, judged, carried)


def _trained(folder: Path, known: Mapping[str, Path]) -> History | None:
    """How the networks of a run or a model folder were trained, as far as it tells."""
    if checkpoints(folder):
        return history(folder, known)
    kept = account_of(folder)
    return None if kept is None else kept.networks


def _autoencoder(recipe: Recipe, known: Mapping[str, Path], release: Release) -> Path:
    """Run or model folder of the autoencoder to be exported. Raises `InvalidSettings` for one with other latents."""
    own = autoencoder_folder(recipe, known)
    if release.autoencoder is None:
        return own
    other = named_folder(str(release.autoencoder), known)
    # one of them may be stored in bfloat16, as both will be
    made, wanted = (latents_digest(open_autoencoder(each).bfloat16()) for each in (other, own))
    if made != wanted:
        raise InvalidSettings(
            f"{other} makes other latents than {own}, with which this run was trained; "
            "name one that went on with it by autoencoder.decoder_only",
            field="autoencoder",
        )
    return other


def _stored(forms: Forms) -> str:
    small = {"large matrices": forms.blocks, "modulation and embedders": forms.outside}
    told = [f"{form} (the transformer's {what})" for what, form in small.items() if form != "none"]
    stored = ", ".join([*told, "bfloat16"])
    return (
        f"{stored}; `licht convert` with `--to diffusers --quant none` makes of it what other programs open"
        if told
        else stored
    )


def _fill(module: nn.Module, tensors: Mapping[str, torch.Tensor], prefix: str) -> None:
    module.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})


class _WholeTower(TextTower):
    """A tower with the layers that are never used, as the language model's own class expects them."""

    def __init__(self, text: TextConfig) -> None:
        """Layers beyond those in use add nothing to the residual stream."""
        whole = TextConfig(text.tower, (*text.layers, text.tower.num_layers), text.length)
        super().__init__(whole)
        self.norm = RMSNorm(text.tower.hidden_size, text.tower.rms_norm_eps)
        for layer in list(self.layers)[text.layers_used :]:
            for parameter in layer.parameters():
                if parameter.ndim == 2:
                    nn.init.zeros_(parameter)


def _write_tower(text: TextConfig, tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    tower = _WholeTower(text)
    own = {name.removeprefix("tower."): value for name, value in tensors.items() if name.startswith("tower.")}
    tower.load_state_dict({**tower.state_dict(), **own})
    save_network(tower.bfloat16(), Target(folder, "model", SHARD_BYTES), Layout.DIFFUSERS)
    write_json(folder / "config.json", tower_json(text))


def _link_equal_parts(folder: Path, final: Path, share: Path) -> None:
    """Replace the files of parts that equal those of `share` by relative links, good from the place `final`.

    Links to files, because archives and builders of packages follow those, and pass over links to folders.
    """
    for name in _SHARED:
        ours, theirs = folder / name, share / name
        if not theirs.is_dir() or _contents(ours) != _contents(theirs):
            continue
        for path in [path for path in ours.rglob("*") if path.is_file()]:
            inside = path.relative_to(folder)
            path.unlink()
            path.symlink_to(os.path.relpath((share / inside).resolve(), (final / inside).parent.resolve()))


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def describe(recipe: Recipe, kind: Kind, release: Release) -> dict[str, Any]:
    """The contents of `licht.json`."""
    streams = recipe.data.streams
    sizes = sorted({stream.size_px for stream in streams}, key=lambda size: (size[0] * size[1], size[0]))
    described: dict[str, Any] = {
        "kind": kind.value,
        "text_layers": list(recipe.networks.text_layers),
        "text_length": recipe.networks.text_length,
        "trained_sizes": [list(size) for size in sizes],
        "max_references": 10,
        "caches_references": True,
        # captions of rendered scenes are structured now and then
        "structured_prompts": any(stream.source is not Source.FOLDER for stream in streams),
        "default_steps": release.steps or (recipe.distil.steps if kind is Kind.KV else _USUAL_STEPS),
    }
    shown = [stream.reference_px**2 for stream in streams if stream.source is not Source.PICTURE]
    if shown:
        described["reference_area_px"] = max(shown)
    if kind is not Kind.KV:
        described["default_guidance"] = 3.0 if release.guidance is None else release.guidance
    return described


# The configurations that diffusers and transformers read --------------------------------------------------------------


def transformer_json(config: TransformerConfig) -> dict[str, Any]:
    """`transformer/config.json`."""
    return {
        "_class_name": "Flux2Transformer2DModel",
        "_diffusers_version": _DIFFUSERS,
        "attention_head_dim": config.head_dim,
        "axes_dims_rope": list(config.axes_dim),
        "eps": 1e-6,
        "guidance_embeds": config.guidance_embed,
        "in_channels": config.in_channels,
        "joint_attention_dim": config.context_in_dim,
        "mlp_ratio": config.mlp_ratio,
        "num_attention_heads": config.num_heads,
        "num_layers": config.depth,
        "num_single_layers": config.depth_single_blocks,
        "out_channels": None,
        "patch_size": 1,
        "rope_theta": config.theta,
        "timestep_guidance_channels": 256,
    }


def autoencoder_json(config: AutoencoderConfig) -> dict[str, Any]:
    """`vae/config.json`."""
    levels = len(config.channels)
    same = config.decoder_channels == config.channels
    return {
        "_class_name": "AutoencoderKLFlux2",
        "_diffusers_version": _DIFFUSERS,
        "act_fn": "silu",
        "batch_norm_eps": config.batch_norm_eps,
        "batch_norm_momentum": 0.1,
        "block_out_channels": list(config.channels),
        "decoder_block_out_channels": None if same else list(config.decoder_channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "in_channels": 3,
        "latent_channels": config.z_channels,
        "layers_per_block": config.num_res_blocks,
        "mid_block_add_attention": True,
        "norm_num_groups": config.norm_groups,
        "out_channels": 3,
        "patch_size": [2, 2],
        "sample_size": 128,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_post_quant_conv": True,
        "use_quant_conv": True,
    }


def tower_json(text: TextConfig) -> dict[str, Any]:
    """`text_encoder/config.json`."""
    tower = text.tower
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "dtype": "bfloat16",
        "eos_token_id": None,
        "head_dim": tower.head_dim,
        "hidden_act": "silu",
        "hidden_size": tower.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": tower.intermediate_size,
        "max_position_embeddings": max(128, text.length),
        "model_type": "qwen3",
        "num_attention_heads": tower.num_attention_heads,
        "num_hidden_layers": tower.num_layers,
        "num_key_value_heads": tower.num_key_value_heads,
        "pad_token_id": None,
        "rms_norm_eps": tower.rms_norm_eps,
        "rope_parameters": {"rope_theta": tower.rope_theta, "rope_type": "default"},
        "sliding_window": None,
        "tie_word_embeddings": True,
        "transformers_version": _TRANSFORMERS,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": tower.vocab_size,
    }


_SCHEDULER: Mapping[str, Any] = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": _DIFFUSERS,
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "invert_sigmas": False,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "shift_terminal": None,
    "stochastic_sampling": False,
    "time_shift_type": "exponential",
    "use_beta_sigmas": False,
    "use_dynamic_shifting": True,
    "use_exponential_sigmas": False,
    "use_karras_sigmas": False,
}


def _model_index(kind: Kind) -> dict[str, Any]:
    pipeline = {Kind.BASE: "Flux2KleinPipeline", Kind.DEV: "Flux2Pipeline", Kind.KV: "Flux2KleinKVPipeline"}[kind]
    return {
        "_class_name": pipeline,
        "_diffusers_version": _DIFFUSERS,
        **({"is_distilled": False} if kind is Kind.BASE else {"is_distilled": True} if kind is Kind.KV else {}),
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen3ForCausalLM"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "transformer": ["diffusers", "Flux2Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLFlux2"],
    }
