"""The reference implementation, diffusers and transformers, over the files of one of our models.

What stands here is only asked for by the golden tests and by `licht doctor --golden`: drawing never needs it. The
libraries are imported when something is loaded, which takes seconds.

Shapes: B batch, T text tokens, L latent tokens, R reference tokens, C channels, D width.
"""

import importlib.util
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from licht.checkpoint.detect import Layout, autoencoder_layout_of, transformer_layout_of
from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement
from licht.checkpoint.packed import stored_format
from licht.checkpoint.reader import read_json
from licht.core.errors import NotAvailable
from licht.core.request import Picture
from licht.core.sizes import Size
from licht.engine.pictures import to_image
from licht.engine.stages import ReferenceTokens
from licht.evaluation.measured import free_memory
from licht.model.variants import AutoencoderConfig, Kind, Tower, TransformerConfig

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
    from transformers import PreTrainedTokenizerBase

Pipeline = Any
"""One of three pipelines of the reference, which have no interface in common."""
Step = tuple[float, Tensor]
"""A time and the latents (1, L, C) at that time."""


@dataclass(frozen=True, slots=True)
class TextInputs:
    """Prompt embeddings (1, T, D); the unconditional ones exactly for true classifier-free guidance."""

    text_1TD: Tensor
    unconditional_1TD: Tensor | None
    guidance: float | None


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawing of the reference: the latents (1, L, C) after the last step, and the picture."""

    latents_1LC: Tensor
    picture: Picture


def versions() -> dict[str, str]:
    """Name -> version of the libraries that are compared with. Raises `NotAvailable` if one is missing."""
    require_reference()
    import diffusers
    import transformers

    return {"diffusers": diffusers.__version__, "transformers": transformers.__version__}


def require_reference() -> None:
    """Raise `NotAvailable` with the way to install it if the reference implementation is not here."""
    missing = [name for name in ("diffusers", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise NotAvailable(
            f"comparing needs {' and '.join(missing)}; install the reference with: pip install 'lichtung[golden]'"
        )


class ReferenceModel:
    """One model as the reference runs it. Nothing large is kept: each question loads what it needs."""

    def __init__(self, files: ModelFiles, placement: Placement) -> None:
        """Read nothing yet. Raises `NotAvailable` without the libraries, and for weights that they cannot read."""
        require_reference()
        if (form := stored_format(files.transformer)) != "none":
            raise NotAvailable(
                f"the reference cannot read {files.parts.transformer}, which is stored as {form}; "
                "compare the model that it was made of"
            )
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        for log in (diffusers_logging, transformers_logging):
            log.disable_progress_bar()
            log.set_verbosity_error()
        self.files = files
        self.placement = placement

    def prompt_texts(self, prompts: Mapping[str, str]) -> dict[str, str]:
        """Prompts by name in the tokenizer's chat template, with the arguments that the pipelines give."""
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        tokenizer = self._tokenizer()
        texts = {}
        for name, prompt in prompts.items():
            turns, generation = [{"role": "user", "content": prompt}], True
            if self._mistral:
                (turns,), generation = format_input([prompt]), False
            text = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=generation, enable_thinking=False
            )
            texts[name] = str(text)
        return texts

    def prompt_tokens(self, prompts: Mapping[str, str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Token ids and mask (1, T) of prompts by name, as the pipeline hands them to its language model."""
        listener = _Listener(max(self.files.variant.text.layers))
        pipeline = self._pipeline(text_encoder=listener, tokenizer=self._tokenizer())
        tokens = {}
        for name, prompt in prompts.items():
            self._encode(pipeline, prompt, torch.device("cpu"))
            tokens[name] = (listener.ids_BL, listener.mask_BL)
        return tokens

    @torch.inference_mode()
    def text(self, prompts: Mapping[str, str]) -> dict[str, Tensor]:
        """Embeddings (1, T, D) of prompts by name, on the CPU."""
        pipeline = self._pipeline(text_encoder=self.text_encoder(), tokenizer=self._tokenizer())
        encoded = {name: self._encode(pipeline, prompt, self.placement.device) for name, prompt in prompts.items()}
        del pipeline
        free_memory()
        return encoded

    def sigmas(self, tokens: int, steps: int) -> Tensor:
        """The noise levels of a run, from 1 to 0, set up as the pipelines do it."""
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu, retrieve_timesteps

        scheduler = self._scheduler()
        mu = compute_empirical_mu(image_seq_len=tokens, num_steps=steps)
        times = np.linspace(1.0, 1 / steps, steps).tolist()
        retrieve_timesteps(scheduler, steps, "cpu", sigmas=times, mu=mu)
        levels: Tensor = scheduler.sigmas
        return levels

    @contextmanager
    def drawing(self) -> "Iterator[ReferenceDrawing]":
        """Transformer and autoencoder, loaded until the end of the block."""
        drawing = ReferenceDrawing(self._pipeline(transformer=self.transformer(), vae=self.autoencoder()), self.files)
        try:
            yield drawing
        finally:
            drawing.close()
            free_memory()

    def transformer(self) -> nn.Module:
        """The flow transformer, from either layout."""
        from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

        path, source = self.files.parts.transformer, self.files.transformer
        if transformer_layout_of(source) is Layout.DIFFUSERS and path.is_dir():
            model: nn.Module = Flux2Transformer2DModel.from_pretrained(path, dtype=self.placement.dtype)
        else:
            model = self._converted_transformer(_only_file(source.paths))
        return model.to(self.placement.device).eval()

    def autoencoder(self) -> nn.Module:
        """The autoencoder, from either layout."""
        from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

        path, source = self.files.parts.autoencoder, self.files.autoencoder
        if autoencoder_layout_of(source) is Layout.DIFFUSERS and path.is_dir():
            model: nn.Module = AutoencoderKLFlux2.from_pretrained(path, dtype=self.placement.dtype)
        else:
            model = self._converted_autoencoder(_only_file(source.paths))
        return model.to(self.placement.device).eval()

    @property
    def _mistral(self) -> bool:
        return self.files.variant.text.tower.tower is Tower.MISTRAL3

    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.files.parts.tokenizer)
        return tokenizer

    def text_encoder(self) -> nn.Module:
        """The whole language model, as a class of the name that its config gives."""
        import transformers

        path = self.files.parts.text_encoder
        (name,) = read_json(path / "config.json")["architectures"]
        model: nn.Module = getattr(transformers, name).from_pretrained(path, dtype=self.placement.dtype)
        return model.to(self.placement.device).eval()

    def _scheduler(self) -> "FlowMatchEulerDiscreteScheduler":
        """The scheduler of the folder; beside a single file, one that shifts as the pipelines tell it."""
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        path = self.files.parts.transformer.parent / "scheduler"
        scheduler: FlowMatchEulerDiscreteScheduler
        if (path / "scheduler_config.json").is_file():
            scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(path)
        else:
            scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        return scheduler

    def _pipeline(
        self,
        *,
        text_encoder: nn.Module | None = None,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        vae: nn.Module | None = None,
        transformer: nn.Module | None = None,
    ) -> Pipeline:
        """The pipeline of this kind of model over the given parts."""
        from diffusers import Flux2KleinKVPipeline, Flux2KleinPipeline, Flux2Pipeline

        parts = {"text_encoder": text_encoder, "tokenizer": tokenizer, "vae": vae, "transformer": transformer}
        kind = self.files.variant.kind
        if self._mistral or (kind is Kind.DEV and transformer is not None):
            pipeline: Pipeline = Flux2Pipeline(scheduler=self._scheduler(), **parts)
        elif kind is Kind.KV and transformer is not None:
            pipeline = Flux2KleinKVPipeline(scheduler=self._scheduler(), **parts)
        else:
            pipeline = Flux2KleinPipeline(scheduler=self._scheduler(), is_distilled=kind is not Kind.BASE, **parts)
        if self.files.variant.caches_references and kind is not Kind.KV and transformer is not None:
            # to build it is what gives the transformer attention that knows a cache
            Flux2KleinKVPipeline(scheduler=self._scheduler(), **parts)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _encode(self, pipeline: Pipeline, prompt: str, device: torch.device) -> Tensor:
        text = self.files.variant.text
        embeddings, _ = pipeline.encode_prompt(
            prompt=prompt, device=device, max_sequence_length=text.length, text_encoder_out_layers=text.layers
        )
        encoded: Tensor = embeddings.cpu()
        return encoded

    def _converted_transformer(self, path: Path) -> nn.Module:
        """A single file through the reference's own conversion, which has to be told the sizes."""
        from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

        with tempfile.TemporaryDirectory() as folder:
            settings = transformer_settings(self.files.variant.transformer)
            (Path(folder) / "config.json").write_text(json.dumps(settings), "utf-8")
            # "." keeps it from looking in a transformer/ folder below
            model: nn.Module = Flux2Transformer2DModel.from_single_file(
                str(path), config=folder, subfolder=".", dtype=self.placement.dtype, local_files_only=True
            )
        return model

    def _converted_autoencoder(self, path: Path) -> nn.Module:
        """A single file through the reference's conversion of latent-diffusion autoencoders."""
        from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
        from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
        from safetensors.torch import load_file

        sizes = self.files.variant.autoencoder
        model: nn.Module = AutoencoderKLFlux2(**autoencoder_settings(sizes))
        tensors = load_file(path)
        if autoencoder_layout_of(self.files.autoencoder) is Layout.OFFICIAL:
            kept = {name: tensor for name, tensor in tensors.items() if name.startswith("bn.")}
            # the conversion knows the outermost convolutions without the parts that they lie in
            outer = ("encoder.quant_conv", "decoder.post_quant_conv")
            renamed = {
                name.split(".", 1)[1] if name.startswith(outer) else name: tensor for name, tensor in tensors.items()
            }
            tensors = {**convert_ldm_vae_checkpoint(renamed, autoencoder_settings(sizes)), **kept}
        tensors = {"bn.num_batches_tracked": torch.zeros((), dtype=torch.long), **tensors}
        model.load_state_dict(tensors, strict=True)
        return model.to(self.placement.dtype)


class ReferenceDrawing:
    """The reference between embedded prompts and pixels."""

    def __init__(self, pipeline: Pipeline, files: ModelFiles) -> None:
        """Draw with a pipeline that has a transformer and an autoencoder."""
        self.pipeline = pipeline
        self.kind = files.variant.kind
        self.cached = files.variant.caches_references
        self.channels = files.variant.autoencoder.z_channels

    def close(self) -> None:
        """Let go of the networks."""
        self.pipeline = None

    def noise(self, seed: int, size: Size) -> tuple[Tensor, Tensor]:
        """Initial latents (1, L, C) in float32 from a CPU generator, and their position ids (1, L, 4)."""
        latents, ids = self.pipeline.prepare_latents(
            1, self.channels, size.height, size.width, torch.float32, self._device, torch.Generator().manual_seed(seed)
        )
        return latents, ids

    def text_ids(self, text_1TD: Tensor) -> Tensor:
        """Position ids (1, T, 4) of text tokens."""
        _, ids = self.pipeline.encode_prompt(None, device=self._device, prompt_embeds=text_1TD)
        found: Tensor = ids
        return found

    def pixels(self, picture: Picture) -> Tensor:
        """(1, 3, H, W) in [-1, 1], as the encoder gets a reference of at most 1024 x 1024 px."""
        image = to_image(picture)
        self.pipeline.image_processor.check_image_input(image)
        height, width = picture.height // 16 * 16, picture.width // 16 * 16
        pixels: Tensor = self.pipeline.image_processor.preprocess(image, height=height, width=width, resize_mode="crop")
        return pixels

    @torch.inference_mode()
    def references(self, pictures: Sequence[Picture]) -> ReferenceTokens:
        """Latent tokens (1, R, C) of all references, and their position ids (1, R, 4)."""
        pixels = [self.pixels(picture) for picture in pictures]
        tokens, ids = self.pipeline.prepare_image_latents(pixels, 1, None, self._device, self._dtype)
        return ReferenceTokens(tokens, ids)

    @torch.inference_mode()
    def decode(self, latents_BCHW: Tensor) -> Tensor:
        """Whitened latents (B, 4 C, h, w) -> image (B, 3, H, W), with the arithmetic of the pipelines."""
        vae = self.pipeline.vae
        z = latents_BCHW.to(self._device, self._dtype)
        deviation = torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps).to(z)
        z = z * deviation + vae.bn.running_mean.view(1, -1, 1, 1).to(z)
        batch, _, rows, columns = z.shape
        z = z.reshape(batch, self.channels, 2, 2, rows, columns).permute(0, 1, 4, 2, 5, 3)
        image: Tensor = vae.decode(z.reshape(batch, self.channels, 2 * rows, 2 * columns), return_dict=False)[0]
        return image

    @torch.inference_mode()
    def velocities(
        self, steps: Sequence[Step], size: Size, inputs: TextInputs, pictures: Sequence[Picture]
    ) -> list[Tensor]:
        """The velocity (1, L, C) float32 at each of `steps`, guidance included, references as the pipeline feeds them."""
        _, x_ids = self.noise(0, size)
        state = _State(x_ids, self.references(pictures) if pictures else None)
        found = []
        for t, latents in steps:
            conditional = self._velocity(t, latents, inputs.text_1TD, inputs.guidance, state)
            if inputs.unconditional_1TD is not None and inputs.guidance is not None:
                free = self._velocity(t, latents, inputs.unconditional_1TD, None, state)
                conditional = free + inputs.guidance * (conditional - free)
            found.append(conditional.float().cpu())
        return found

    def _velocity(
        self, t: float, latents_1LC: Tensor, text_1TD: Tensor, guidance: float | None, state: "_State"
    ) -> Tensor:
        x = latents_1LC.to(self._device, self._dtype)
        length = x.shape[1]
        embedded = guidance if self.kind is Kind.DEV else None
        arguments: dict[str, Any] = {
            "encoder_hidden_states": text_1TD.to(self._device, self._dtype),
            "timestep": torch.full((1,), t, device=self._device),
            "guidance": None if embedded is None else torch.full((1,), embedded, device=self._device),
            "txt_ids": self.text_ids(text_1TD),
            "return_dict": False,
        }
        transformer, references = self.pipeline.transformer, state.references
        out: Tensor
        if references is None:
            (out,) = transformer(hidden_states=x, img_ids=state.x_ids, **arguments)
        elif not self.cached:
            ids = torch.cat([state.x_ids, references.ids], dim=1)
            (out,) = transformer(hidden_states=torch.cat([x, references.tokens_1RC], dim=1), img_ids=ids, **arguments)
        elif state.cache is not None:
            arguments |= {"kv_cache": state.cache, "kv_cache_mode": "cached"}
            (out,) = transformer(hidden_states=x, img_ids=state.x_ids, **arguments)
        else:
            ids = torch.cat([references.ids, state.x_ids], dim=1)
            arguments |= {"kv_cache_mode": "extract", "num_ref_tokens": references.tokens_1RC.shape[1]}
            tokens = torch.cat([references.tokens_1RC, x], dim=1)
            out, state.cache = transformer(hidden_states=tokens, img_ids=ids, **arguments)
        return out[:, :length]

    @torch.inference_mode()
    def draw(
        self, noise_BCHW: Tensor, steps: int, size: Size, inputs: TextInputs, pictures: Sequence[Picture]
    ) -> Drawn:
        """A whole drawing by the pipeline, from given noise (1, 4 C, h, w)."""
        last: list[Tensor] = []

        def remember(_pipeline: object, _step: int, _time: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            last[:] = [tensors["latents"]]
            return tensors

        arguments: dict[str, Any] = {}
        if self.kind is not Kind.KV:
            arguments["guidance_scale"] = 1.0 if inputs.guidance is None else inputs.guidance
        if inputs.unconditional_1TD is not None:
            arguments["negative_prompt_embeds"] = inputs.unconditional_1TD.to(self._device, self._dtype)
        (image,) = self.pipeline(
            image=[to_image(picture) for picture in pictures] or None,
            prompt_embeds=inputs.text_1TD.to(self._device, self._dtype),
            latents=noise_BCHW,
            height=size.height,
            width=size.width,
            num_inference_steps=steps,
            callback_on_step_end=remember,
            **arguments,
        ).images
        return Drawn(last[0].float().cpu(), Picture(image.width, image.height, image.tobytes()))

    def can_draw(self, pictures: Sequence[Picture]) -> bool:
        """Whether the pipeline draws as the model was trained: only that for KV models caches references."""
        return self.kind is Kind.KV or not (self.cached and pictures)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.pipeline.transformer.device
        return device

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.pipeline.transformer.dtype
        return dtype


@dataclass(slots=True)
class _State:
    """What stays the same over the steps of one drawing, and the cached references, which the first pass fills."""

    x_ids: Tensor
    references: ReferenceTokens | None
    cache: object = None


class _Listener(nn.Module):
    """Stands in for a language model: remembers what it is given and answers with zeros."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.dtype = torch.float32
        self.device = torch.device("cpu")
        self.ids_BL = torch.empty(0)
        self.mask_BL = torch.empty(0)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, output_hidden_states: bool, use_cache: bool
    ) -> SimpleNamespace:
        del output_hidden_states, use_cache
        self.ids_BL, self.mask_BL = input_ids, attention_mask
        return SimpleNamespace(hidden_states=[torch.zeros(*input_ids.shape, 1)] * (self.layers + 1))


def transformer_settings(sizes: TransformerConfig) -> dict[str, Any]:
    """The sizes of a flow transformer as the reference's config.json has them."""
    return {
        "_class_name": "Flux2Transformer2DModel",
        "in_channels": sizes.in_channels,
        "num_layers": sizes.depth,
        "num_single_layers": sizes.depth_single_blocks,
        "attention_head_dim": sizes.head_dim,
        "num_attention_heads": sizes.num_heads,
        "joint_attention_dim": sizes.context_in_dim,
        "mlp_ratio": sizes.mlp_ratio,
        "axes_dims_rope": list(sizes.axes_dim),
        "rope_theta": sizes.theta,
        "guidance_embeds": sizes.guidance_embed,
    }


def autoencoder_settings(sizes: AutoencoderConfig) -> dict[str, Any]:
    """The sizes of an autoencoder as arguments of the reference's class."""
    levels = len(sizes.channels)
    return {
        "block_out_channels": sizes.channels,
        "decoder_block_out_channels": sizes.decoder_channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": sizes.num_res_blocks,
        "latent_channels": sizes.z_channels,
        "norm_num_groups": sizes.norm_groups,
        "batch_norm_eps": sizes.batch_norm_eps,
    }


def _only_file(paths: Sequence[Path]) -> Path:
    """The one file of a part. Raises `NotAvailable` for shards in a layout that the reference cannot read."""
    if len(paths) != 1:
        raise NotAvailable(f"the reference cannot read {paths[0].parent} in shards of the official layout; join them")
    return paths[0]
