"""Small random models of every kind, written by Licht itself in either layout. Building one takes milliseconds."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from licht.checkpoint.detect import Layout
from licht.checkpoint.save import Target, save_network
from licht.model.autoencoder import Autoencoder
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer
from licht.model.variants import AutoencoderConfig, Kind, TextConfig, Tower, TowerConfig, TransformerConfig

Network = TypeVar("Network", bound=nn.Module)

TRANSFORMER = TransformerConfig(32, 2, 2, 2, context_in_dim=48, guidance_embed=False, in_channels=16, axes_dim=(4,) * 4)
DEV_TRANSFORMER = dataclasses.replace(TRANSFORMER, guidance_embed=True)
AUTOENCODER = AutoencoderConfig(
    channels=(4, 8, 8, 12), decoder_channels=(4, 4, 8, 12), num_res_blocks=1, z_channels=4, norm_groups=4
)
QWEN = TowerConfig(Tower.QWEN3, 300, 16, 24, 4, 4, 2, 8, 1e4, 1e-6)
MISTRAL = TowerConfig(Tower.MISTRAL3, 300, 16, 24, 4, 4, 1, 4, 1e6, 1e-5)
TEXT = TextConfig(QWEN, (1, 2, 3), 40)
MISTRAL_TEXT = TextConfig(MISTRAL, (1, 2, 3), 240)
"""Long enough for the system message, which is a token a character for these tokenizers."""

SPECIAL_TOKENS = {
    Tower.QWEN3: ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
    Tower.MISTRAL3: ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"],
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a model folder is made of; `description` is its licht.json, None for none."""

    transformer: TransformerConfig = TRANSFORMER
    autoencoder: AutoencoderConfig = AUTOENCODER
    text: TextConfig = TEXT
    layout: Layout = Layout.DIFFUSERS
    shard_bytes: int = 10**9
    description: dict[str, Any] | None = dataclasses.field(default_factory=lambda: describe(Kind.KLEIN))
    index: dict[str, Any] | None = None


def describe(kind: Kind | None, text: TextConfig = TEXT, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """The contents of a licht.json that fits the small models."""
    said = {} if kind is None else {"kind": kind.value}
    return {**said, "text_layers": list(text.layers), "text_length": text.length, "default_steps": 2, **more}


def recipe(kind: Kind, layout: Layout = Layout.DIFFUSERS, **more: Any) -> Recipe:  # noqa: ANN401 - JSON
    """A model of one kind; dev reads its prompt with Mistral. `more` goes into its licht.json."""
    if kind is Kind.DEV:
        return Recipe(
            transformer=DEV_TRANSFORMER,
            text=MISTRAL_TEXT,
            layout=layout,
            description=describe(kind, MISTRAL_TEXT, **more),
        )
    return Recipe(layout=layout, description=describe(kind, **more))


def network(module: Network, seed: int = 0) -> Network:
    """`module` with random weights in which nothing is neutral: neither norms nor statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.3, 2.5, generator=generator)
            elif tensor.ndim == 1 and name.endswith(("weight", "scale")):
                tensor.uniform_(0.7, 1.3, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0.0, 0.2 if tensor.ndim == 1 else tensor[0].numel() ** -0.5, generator=generator)
    return module.eval().requires_grad_(False)


def transformer(config: TransformerConfig = TRANSFORMER, seed: int = 1) -> Flux2Transformer:
    """A random flow transformer."""
    return network(Flux2Transformer(config), seed)


def autoencoder(config: AutoencoderConfig = AUTOENCODER, seed: int = 2) -> Autoencoder:
    """A random autoencoder."""
    return network(Autoencoder(config), seed)


def tower(config: TextConfig = TEXT, seed: int = 3) -> TextTower:
    """A random text tower."""
    return network(TextTower(config), seed)


def write_folder(folder: Path, made: Recipe) -> Path:
    """A model folder with random weights."""
    vae, text = made.autoencoder, made.text
    save_network(transformer(made.transformer), _target(folder, "transformer", made), made.layout)
    save_network(autoencoder(vae), _target(folder, "vae", made), made.layout)
    save_network(tower(text), _target(folder, "text_encoder", made), made.layout)
    axes = {"axes_dims_rope": list(made.transformer.axes_dim), "rope_theta": made.transformer.theta}
    write(folder / "transformer" / "config.json", axes)
    write(folder / "vae" / "config.json", {"norm_num_groups": vae.norm_groups, "batch_norm_eps": vae.batch_norm_eps})
    write(folder / "text_encoder" / "config.json", tower_json(text.tower))
    write_tokenizer(folder / "tokenizer", text.tower.tower)
    if made.description is not None:
        write(folder / "licht.json", made.description)
    if made.index is not None:
        write(folder / "model_index.json", made.index)
    return folder


def tower_json(tower: TowerConfig) -> dict[str, Any]:
    """The config.json of a language model, as transformers writes it."""
    text = {
        "model_type": "qwen3" if tower.tower is Tower.QWEN3 else "mistral",
        "vocab_size": tower.vocab_size,
        "hidden_size": tower.hidden_size,
        "intermediate_size": tower.intermediate_size,
        "num_hidden_layers": tower.num_layers,
        "num_attention_heads": tower.num_attention_heads,
        "num_key_value_heads": tower.num_key_value_heads,
        "head_dim": tower.head_dim,
        "rms_norm_eps": tower.rms_norm_eps,
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": tower.rope_theta},
    }
    return text if tower.tower is Tower.QWEN3 else {"model_type": "mistral3", "text_config": text}


def write_tokenizer(folder: Path, tower: Tower) -> Path:
    """A tokenizer that makes a token of every byte, with the special tokens of one tower and no chat template."""
    special = SPECIAL_TOKENS[tower]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write(path: Path, value: object) -> None:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def change(path: Path, **values: Any) -> None:  # noqa: ANN401 - JSON
    """Replace fields of a JSON object on disk."""
    write(path, {**json.loads(path.read_text(encoding="utf-8")), **values})


def _target(folder: Path, part: str, made: Recipe) -> Target:
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    return Target(folder / part, stem, made.shard_bytes)
