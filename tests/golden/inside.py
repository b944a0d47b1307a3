"""Inside the networks: every block's output on both sides, for equal inputs.

Shapes: B batch, T text tokens, L latent tokens, R reference tokens, C channels, D width, H heads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from torch import Tensor, nn

from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.core.sizes import Size
from licht.engine.pictures import to_tensor
from licht.engine.prompts import PromptTokenizer
from licht.evaluation.compare import PROMPTS, SEED, tolerance_of
from licht.evaluation.golden import ReferenceModel
from licht.evaluation.measured import Measured, relative_error, sample_picture
from licht.model.positions import image_ids, reference_ids, text_ids
from licht.model.transformer import Flux2Transformer, ReferenceCache
from licht.model.variants import Kind

GRID = (5, 7)
REFERENCE_GRIDS = ((4, 4), (2, 8), (3, 5))
TEXT_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Inputs:
    """Made-up inputs of a flow transformer: two pictures at different times, three references of different sizes."""

    x_BLC: Tensor
    references_BRC: Tensor
    text_BTD: Tensor
    timesteps_B: Tensor
    guidance_B: Tensor | None
    x_ids: Tensor
    reference_ids: Tensor
    text_ids: Tensor


def inputs_for(transformer: Flux2Transformer) -> Inputs:
    """Inputs that fit `transformer`, the same in every run."""
    generator = torch.Generator().manual_seed(SEED)
    sizes = transformer.config
    references = sum(rows * columns for rows, columns in REFERENCE_GRIDS)
    return Inputs(
        torch.randn(2, GRID[0] * GRID[1], sizes.in_channels, generator=generator),
        torch.randn(2, references, sizes.in_channels, generator=generator),
        2 * torch.randn(2, TEXT_TOKENS, sizes.context_in_dim, generator=generator),
        torch.tensor([0.9, 0.3]),
        torch.tensor([4.0, 2.5]) if sizes.guidance_embed else None,
        image_ids(GRID),
        reference_ids(REFERENCE_GRIDS),
        text_ids(TEXT_TOKENS),
    )


@contextmanager
def outputs_of(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Any]]]:
    """What each module returned, call by call, for as long as the block lasts."""
    seen: dict[str, list[Any]] = {name: [] for name in modules}

    def remember(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda _module, _inputs, output: seen[name].append(output)

    handles = [module.register_forward_hook(remember(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def compare_transformer_blocks(files: ModelFiles, placement: Placement) -> Iterator[Measured]:
    """Conditioning, modulations, every block and the result, with three references as this kind of model takes them."""
    ours = load_transformer(files.transformer, placement, files.transformer_config)
    given = inputs_for(ours)
    with outputs_of(_our_blocks(ours)) as seen:
        cache = None
        x, x_ids = torch.cat([given.x_BLC, given.references_BRC], dim=1), torch.cat([given.x_ids, given.reference_ids])
        if files.variant.kind is Kind.KV:
            cache = ours.reference_cache(given.references_BRC, given.reference_ids, given.guidance_B)
            x, x_ids = given.x_BLC, given.x_ids
        velocity = ours(x, x_ids, given.text_BTD, given.text_ids, given.timesteps_B, given.guidance_B, cache=cache)
        conditioning = ours.conditioning(given.timesteps_B, given.guidance_B, torch.float32)
    mine = {"conditioning": conditioning, **_our_outputs(seen), "velocity": velocity, **_our_cache(cache)}
    theirs = reference_blocks(files, placement, given)
    assert mine.keys() == theirs.keys()
    for name, output in mine.items():
        error = relative_error(output, theirs[name])
        yield Measured(files.variant.name, "each block", name, error, tolerance_of(placement).component)


def _our_blocks(ours: Flux2Transformer) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {
        "modulation image": ours.double_stream_modulation_img,
        "modulation text": ours.double_stream_modulation_txt,
        "modulation single": ours.single_stream_modulation,
    }
    modules |= {f"double block {n}": block for n, block in enumerate(ours.double_blocks, 1)}
    return modules | {f"single block {n}": block for n, block in enumerate(ours.single_blocks, 1)}


def _our_outputs(seen: Mapping[str, list[Any]]) -> dict[str, Tensor]:
    flat = {}
    for name, outputs in seen.items():
        # references that are cached come first; the last call is that of the picture
        output = outputs[-1]
        if name.startswith("modulation"):
            flat[name] = torch.cat([part for triple in output for part in triple], dim=-1)
        elif name.startswith("double"):
            image, text = output
            flat[name] = torch.cat([text, image], dim=1)
        else:
            flat[name] = output
    return flat


def _our_cache(cache: ReferenceCache | None) -> dict[str, Tensor]:
    if cache is None:
        return {}
    pairs = cache.double + cache.single
    # the reference keeps (B, R, H, D)
    return {
        "cached keys": torch.stack([k.transpose(1, 2) for k, _ in pairs]),
        "cached values": torch.stack([v.transpose(1, 2) for _, v in pairs]),
    }


def reference_blocks(files: ModelFiles, placement: Placement, given: Inputs) -> dict[str, Tensor]:
    """The same on the reference's side, tokens in our order: text, picture, references where they run along."""
    with ReferenceModel(files, placement).drawing() as drawing:
        theirs = drawing.pipeline.transformer
        cached = files.variant.kind is Kind.KV
        with outputs_of(_their_blocks(theirs)) as seen:
            count = given.references_BRC.shape[1]
            order = (given.references_BRC, given.x_BLC) if cached else (given.x_BLC, given.references_BRC)
            ids = (given.reference_ids, given.x_ids) if cached else (given.x_ids, given.reference_ids)
            extra = {"kv_cache_mode": "extract", "num_ref_tokens": count} if cached else {}
            out = theirs(
                hidden_states=torch.cat(order, dim=1),
                encoder_hidden_states=given.text_BTD,
                timestep=given.timesteps_B,
                guidance=given.guidance_B,
                img_ids=torch.cat(ids),
                txt_ids=given.text_ids,
                return_dict=False,
                **extra,
            )
        found = _their_outputs(seen, count if cached else 0)
        found["velocity"] = out[0]
        if cached:
            caches = out[1].double_block_caches + out[1].single_block_caches
            found["cached keys"] = torch.stack([cache.k_ref for cache in caches])
            found["cached values"] = torch.stack([cache.v_ref for cache in caches])
        return found


def _their_blocks(theirs: Flux2Transformer2DModel) -> dict[str, nn.Module]:
    modules = {
        "conditioning": theirs.time_guidance_embed,
        "modulation image": theirs.double_stream_modulation_img,
        "modulation text": theirs.double_stream_modulation_txt,
        "modulation single": theirs.single_stream_modulation,
    }
    modules |= {f"double block {n}": block for n, block in enumerate(theirs.transformer_blocks, 1)}
    return modules | {f"single block {n}": block for n, block in enumerate(theirs.single_transformer_blocks, 1)}


def _their_outputs(seen: Mapping[str, list[Any]], skipped: int) -> dict[str, Tensor]:
    """Without the first `skipped` tokens after the text, which are references that we do not run along."""
    flat = {}
    for name, outputs in seen.items():
        # the picture's own time comes first, that of cached references second
        output = outputs[0]
        if name == "conditioning":
            flat[name] = output
        elif name.startswith("modulation"):
            flat[name] = output[:, None]
        else:
            joint = torch.cat(output, dim=1) if name.startswith("double") else output
            flat[name] = torch.cat([joint[:, :TEXT_TOKENS], joint[:, TEXT_TOKENS + skipped :]], dim=1)
    return flat


@torch.inference_mode()
def compare_text_layers(files: ModelFiles, placement: Placement) -> Iterator[Measured]:
    """The output of every layer of the text tower that is used: padded, and cut because it is too long."""
    tokenizer = PromptTokenizer(files.parts.tokenizer, files.variant.text, files.template)
    tower = load_tower(files.tower, placement, files.variant.text)
    encoder: Any = ReferenceModel(files, placement).text_encoder()
    for name in ("short", "long"):
        tokens = tokenizer([PROMPTS[name]])
        with outputs_of({f"{n}": layer for n, layer in enumerate(tower.layers, 1)}) as seen:
            tower(tokens.ids_BL, tokens.attended_BL)
        states = encoder(
            input_ids=tokens.ids_BL,
            attention_mask=tokens.attended_BL.long(),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        errors = [relative_error(seen[f"{n}"][0], states[n]) for n in range(1, files.variant.text.layers_used + 1)]
        allowed = tolerance_of(placement).component
        yield Measured(files.variant.name, f"each layer, {name}", "text layers", max(errors), allowed)


@torch.inference_mode()
def compare_autoencoder_levels(files: ModelFiles, placement: Placement) -> Iterator[Measured]:
    """The output of every level of encoder and decoder, on a wide picture."""
    ours = load_autoencoder(files.autoencoder, placement, files.autoencoder_config)
    theirs: Any = ReferenceModel(files, placement).autoencoder()
    image = to_tensor(sample_picture(Size(112, 80), SEED))
    with outputs_of(_levels(ours.encoder.down, ours.encoder.mid, "encoder")) as mine:
        mean, log_variance = ours.encode_moments(image)
    with outputs_of(_levels(theirs.encoder.down_blocks, theirs.encoder.mid_block, "encoder")) as others:
        posterior = theirs.encode(image).latent_dist
    mine["mean"], others["mean"] = [mean], [posterior.mean]
    mine["log variance"], others["log variance"] = [log_variance.clamp(-30.0, 20.0)], [posterior.logvar]
    with outputs_of(_levels(list(reversed(ours.decoder.up)), ours.decoder.mid, "decoder")) as decoded:
        mine["picture"] = [ours.decoder(mean)]
    with outputs_of(_levels(theirs.decoder.up_blocks, theirs.decoder.mid_block, "decoder")) as their_decoded:
        others["picture"] = [theirs.decode(mean).sample]
    mine, others = mine | decoded, others | their_decoded
    for name, outputs in mine.items():
        error = relative_error(outputs[0], others[name][0])
        yield Measured(files.variant.name, "each level", name, error, tolerance_of(placement).component)


def _levels(levels: Sequence[nn.Module] | nn.ModuleList, middle: nn.Module, name: str) -> dict[str, nn.Module]:
    return {f"{name} middle": middle, **{f"{name} level {n}": level for n, level in enumerate(levels, 1)}}
