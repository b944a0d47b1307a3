"""Small random models of every kind, built and saved by the reference libraries themselves.

The widths are small, everything else is official: 36 and 40 text layers of which the published ones are read, 512 text
tokens, heads of 128, four rotary axes of 32. Weights are scaled so that every part of the signal is alive: attention is
peaked, modulation matters, and pixels stay inside their range.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from diffusers.pipelines.flux2.pipeline_flux2 import Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein_kv import Flux2KleinKVPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from licht.engine.prompts import DEV_SYSTEM_MESSAGE

# Whatever a user types goes through these: they are written for these tests and give the official text for one turn.
QWEN_TEMPLATE = """{%- if tools %}{{- raise_exception('tools are not part of a prompt: ' + tools | tojson) }}{%- endif %}
{%- set state = namespace(turns=0) %}
{%- for message in messages %}
    {%- set state.turns = state.turns + 1 %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
MISTRAL_TEMPLATE = """{%- set today = strftime_now("%Y-%m-%d") %}
{%- set default_system_message = "Today is " + today + "." %}
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'][0]['text'] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system_message = default_system_message %}
    {%- set turns = messages %}
{%- endif %}
{{- '[SYSTEM_PROMPT]' + system_message + '[/SYSTEM_PROMPT]' }}
{%- for message in turns %}
    {%- if message['role'] != 'user' %}{{- raise_exception('only user turns are known') }}{%- endif %}
    {{- '[INST]' }}
    {%- for block in message['content'] %}
        {%- if block['type'] == 'text' %}{{- block['text'] }}{%- else %}{{- '[IMG]' }}{%- endif %}
    {%- endfor %}
    {{- '[/INST]' }}
{%- endfor %}
"""
_CORPUS = (
    "a large shiny red sphere to the left of a small matte blue cube on a gray floor, light from the left",
    DEV_SYSTEM_MESSAGE,
    "user assistant system A cat holding a sign that says hello world, 1234567890 times! (\"quoted\", 'too')",
    "Zwei Vögel über dem Fluß, où est le café? Привет, мир. 一只猫坐在窗边 🦊",
)


Pipeline = Flux2Pipeline | Flux2KleinPipeline | Flux2KleinKVPipeline


@dataclass(frozen=True, slots=True)
class Recipe:
    """One kind of model: which pipeline draws with it, and the shapes in which the kinds differ."""

    pipeline: type[Pipeline]
    seed: int
    heads: int = 2
    double_blocks: int = 2
    single_blocks: int = 3
    guidance_embeds: bool = False
    decoder_channels: tuple[int, ...] | None = None
    mistral: bool = False
    padding_side: str = "right"
    distilled: bool | None = None
    text_length: int | None = None
    caches_references: bool = False


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "dev": Recipe(
            Flux2Pipeline,
            seed=1,
            guidance_embeds=True,
            decoder_channels=(24, 32, 48, 48),
            mistral=True,
            padding_side="left",
        ),
        "klein": Recipe(Flux2KleinPipeline, seed=2, distilled=True),
        "base": Recipe(
            Flux2KleinPipeline,
            seed=3,
            double_blocks=1,
            single_blocks=2,
            distilled=False,
            text_length=128,
        ),
        "kv": Recipe(Flux2KleinKVPipeline, seed=4, text_length=128),
        "cached base": Recipe(
            Flux2KleinPipeline,
            seed=5,
            double_blocks=1,
            single_blocks=2,
            distilled=False,
            text_length=128,
            caches_references=True,
        ),
        "cached dev": Recipe(
            Flux2Pipeline,
            seed=6,
            double_blocks=1,
            single_blocks=2,
            guidance_embeds=True,
            text_length=128,
            caches_references=True,
        ),
    }
)
TEXT_WIDTH = 64


def build(recipe: Recipe, folder: Path) -> None:
    """Save a model of one kind as its pipeline saves it, and say what is not official about it in a licht.json."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        parts: dict[str, Any] = {
            "scheduler": scheduler(),
            "vae": autoencoder(recipe),
            "text_encoder": mistral_tower() if recipe.mistral else qwen_tower(),
            "tokenizer": (mistral_tokenizer if recipe.mistral else qwen_tokenizer)(recipe.padding_side),
            "transformer": transformer(recipe),
        }
    if recipe.distilled is not None:
        parts["is_distilled"] = recipe.distilled
    recipe.pipeline(**parts).save_pretrained(folder)
    if recipe.text_length is not None:
        described = {"text_length": recipe.text_length, "caches_references": recipe.caches_references}
        (folder / "licht.json").write_text(json.dumps(described), "utf-8")


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The scheduler with the settings of the official folders; its own shifts are overruled by the pipelines."""
    made: FlowMatchEulerDiscreteScheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, time_shift_type="exponential"
    )
    return made


def transformer(recipe: Recipe) -> nn.Module:
    """A flow transformer with official head width and axes."""
    model: nn.Module = Flux2Transformer2DModel(
        num_layers=recipe.double_blocks,
        num_single_layers=recipe.single_blocks,
        num_attention_heads=recipe.heads,
        joint_attention_dim=3 * TEXT_WIDTH,
        guidance_embeds=recipe.guidance_embeds,
    )
    _fill(model, _transformer_scale)
    return model.eval()


def autoencoder(recipe: Recipe) -> nn.Module:
    """An autoencoder with official depth and narrow levels; its statistics are far from the neutral ones."""
    model: AutoencoderKLFlux2 = AutoencoderKLFlux2(
        block_out_channels=(16, 24, 32, 32),
        decoder_block_out_channels=recipe.decoder_channels,
        norm_num_groups=8,
    )
    _fill(model, _autoencoder_scale)
    statistics = dict(model.bn.named_buffers())
    statistics["running_mean"].normal_(0.0, 0.4)
    statistics["running_var"].uniform_(0.3, 2.5)
    return model


def qwen_tower() -> nn.Module:
    """A Qwen3 of 36 layers with grouped heads."""
    config = Qwen3Config(
        vocab_size=1024,
        hidden_size=TEXT_WIDTH,
        intermediate_size=160,
        num_hidden_layers=36,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
    )
    model: nn.Module = Qwen3ForCausalLM(config)
    _fill(model, _tower_scale)
    return model.eval()


def mistral_tower() -> nn.Module:
    """A Mistral-3 of 40 layers with a tiny eye that is never used."""
    text = MistralConfig(
        vocab_size=1024,
        hidden_size=TEXT_WIDTH,
        intermediate_size=160,
        num_hidden_layers=40,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=24,
        rope_parameters={"rope_type": "default", "rope_theta": 1e9},
        rms_norm_eps=1e-5,
        sliding_window=None,
    )
    vision = PixtralVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32
    )
    model: nn.Module = Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))
    _fill(model, _tower_scale)
    return model.eval()


def qwen_tokenizer(padding_side: str) -> PreTrainedTokenizerFast:
    """A small vocabulary with Qwen's special tokens, normalisation and template."""
    tokenizer = _train(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"])
    tokenizer.normalizer = normalizers.NFC()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        padding_side=padding_side,
        chat_template=QWEN_TEMPLATE,
    )


def mistral_tokenizer(padding_side: str) -> PreTrainedTokenizerFast:
    """A small vocabulary with Mistral's special tokens and template."""
    marks = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]"]
    return PreTrainedTokenizerFast(
        tokenizer_object=_train(["<unk>", "<s>", "</s>", "<pad>", *marks]),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side=padding_side,
        chat_template=MISTRAL_TEMPLATE,
    )


def with_padding(folder: Path, side: str, target: Path) -> Path:
    """A copy of a tokenizer folder that pads on another side."""
    shutil.copytree(folder, target)
    settings = json.loads((target / "tokenizer_config.json").read_text("utf-8"))
    settings["padding_side"] = side
    (target / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return target


def without_chat_template(folder: Path, target: Path) -> Path:
    """A copy of a tokenizer folder that leaves the template to whoever reads it."""
    return Path(shutil.copytree(folder, target, ignore=shutil.ignore_patterns("chat_template.jinja")))


def _train(special_tokens: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        min_frequency=1,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def _fill(model: nn.Module, scale: Callable[[str, Tensor], float]) -> None:
    """Random weights: matrices of deviation `scale` / sqrt(inputs), norms around one, biases around zero."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                around = 1.0 if name.endswith("weight") else 0.0
                weight.normal_(around, 0.2).mul_(scale(name, weight))
            else:
                weight.normal_(0.0, scale(name, weight) / math.sqrt(weight[0].numel()))


def _transformer_scale(name: str, weight: Tensor) -> float:
    if weight.ndim == 1:
        return 1.4  # norms of queries and keys: attention that is neither flat nor a single token
    return 0.7 if "modulation" in name or "norm_out" in name else 1.0


def _autoencoder_scale(name: str, weight: Tensor) -> float:
    if weight.ndim == 1:
        return 1.0
    return 0.4 if name.startswith("decoder.conv_out") else 1.2


def _tower_scale(name: str, weight: Tensor) -> float:
    if weight.ndim == 1:
        return 1.0
    return math.sqrt(TEXT_WIDTH) if "embed_tokens" in name else 0.7
