"""The four stages as functions over loaded networks. None of them keeps anything.

Shapes: B batch, T text tokens, L latent tokens, R reference tokens, C channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from licht.core.request import PREVIEW_PX, Picture
from licht.engine.pictures import to_picture, to_tensor
from licht.engine.prompts import PromptTokens
from licht.model.attention import KeyBias
from licht.model.autoencoder import Autoencoder
from licht.model.banded import decode_banded, encode_banded
from licht.model.positions import REFERENCE_STRIDE, image_ids, text_ids
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer, ReferenceCache
from licht.sampling.guidance import classifier_free
from licht.sampling.noise import grid_to_tokens, tokens_to_grid
from licht.sampling.solvers import Velocity

_PIXELS_PER_LATENT: Final = 8
"""A token stands for two by two of them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reference stands: its number, from 1, and the row and column of the token where it begins.

    `strength` says how much it counts; 1 is as the model was trained.
    """

    number: int
    strength: float = 1.0
    offset: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class ReferenceTokens:
    """Clean latent tokens of all references, (1, R, C) float32, and their positions (R, 4).

    `log_strength_R` is what is added to the logits of their keys, None if every strength is 1.
    """

    tokens_1RC: Tensor
    ids: Tensor
    log_strength_R: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that steers the denoising besides the noise. Unconditional text is present exactly with true CFG."""

    text_1TD: Tensor
    unconditional_1TD: Tensor | None
    guidance: float | None
    references: ReferenceTokens | None
    cache: ReferenceCache | None


@torch.inference_mode()
def encode_prompt(tower: TextTower, tokens: PromptTokens) -> Tensor:
    """Stacked hidden states (B, T, D) of tokenised prompts, on the tower's device and in its dtype."""
    device = tower.embed_tokens.weight.device
    states: Tensor = tower(tokens.ids_BL.to(device), tokens.attended_BL.to(device))
    return states


@torch.inference_mode()
def encode_reference(autoencoder: Autoencoder, picture: Picture, banded: bool = False) -> Tensor:
    """Whitened latents (1, C, rows, columns) float32 of one prepared reference; `banded` takes less memory."""
    weight = autoencoder.decoder.conv_in.weight
    image = to_tensor(picture).to(weight.device, weight.dtype)
    return (encode_banded(autoencoder, image) if banded else autoencoder.encode(image)).float()


def join_references(latents: Sequence[Tensor], places: Sequence[Place] | None = None) -> ReferenceTokens:
    """Latents of each reference (1, C, rows, columns) -> one sequence at t = 10 x its number (default: 1, 2, 3, ...)."""
    placed = places or [Place(number) for number in range(1, len(latents) + 1)]
    tokens = torch.cat([grid_to_tokens(latent) for latent in latents], dim=1)
    ids, logs = [], []
    for latent, place in zip(latents, placed, strict=True):
        one = image_ids((latent.shape[2], latent.shape[3]), REFERENCE_STRIDE * place.number)
        ids.append(one + torch.tensor([0, *place.offset, 0]))
        logs.append(torch.full((len(one),), math.log(place.strength)))
    log_strength_R = torch.cat(logs).to(tokens.device)
    plain = all(place.strength == 1.0 for place in placed)
    return ReferenceTokens(tokens, torch.cat(ids).to(tokens.device), None if plain else log_strength_R)


@torch.inference_mode()
def cache_references(
    transformer: Flux2Transformer, references: ReferenceTokens, guidance: float | None
) -> ReferenceCache:
    """Keys and values of references for a model that caches them."""
    weight = transformer.img_in.weight
    scale = _guidance_tensor(transformer, guidance, 1)
    return transformer.reference_cache(references.tokens_1RC.to(weight.dtype), references.ids, scale)


def velocity_of(transformer: Flux2Transformer, conditions: Conditions, grid: tuple[int, int]) -> Velocity:
    """The velocity function of one run: (latents (B, L, C) float32, t) -> float32 of the same shape.

    References enter the network beside the latents and never leave it: only the first L velocities are returned.
    """
    weight = transformer.img_in.weight
    x_ids = image_ids(grid).to(weight.device)
    references = conditions.references if conditions.cache is None else None
    bias = _key_bias(conditions, image_tokens=len(x_ids))
    if references is not None:
        x_ids = torch.cat([x_ids, references.ids])
    text = conditions.text_1TD
    if conditions.unconditional_1TD is not None:
        text = torch.cat([conditions.unconditional_1TD, text])
    text = text.to(weight.device, weight.dtype)
    txt_ids = text_ids(text.shape[1]).to(weight.device)

    @torch.inference_mode()
    def velocity(latents_BLC: Tensor, t: float) -> Tensor:
        batch, length, _ = latents_BLC.shape
        x = latents_BLC
        if references is not None:
            x = torch.cat([x, references.tokens_1RC.expand(batch, -1, -1)], dim=1)
        passes = text.shape[0]
        x = x.to(weight.dtype).repeat(passes, 1, 1)
        timesteps = torch.full((batch * passes,), t, device=x.device)
        scale = _guidance_tensor(transformer, conditions.guidance, batch * passes)
        out: Tensor = transformer(
            x, x_ids, text.repeat_interleave(batch, 0), txt_ids, timesteps, scale, cache=conditions.cache, bias=bias
        )[:, :length].float()
        if passes == 1 or conditions.guidance is None:
            return out
        unconditional, conditional = out.chunk(2)
        return classifier_free(unconditional, conditional, conditions.guidance)

    return velocity


def _key_bias(conditions: Conditions, image_tokens: int) -> KeyBias | None:
    """The strengths of references as a bias on their keys, for queries of text and image; None if all are 1.

    Keys come as text, cached references, image, or as text, image, references: references themselves see one another
    as they are, so their strength does not change what they say.
    """
    if conditions.references is None or conditions.references.log_strength_R is None:
        return None
    logs_R = conditions.references.log_strength_R
    before = conditions.text_1TD.shape[1] + (image_tokens if conditions.cache is None else 0)
    after = 0 if conditions.cache is None else image_tokens
    logits_S = torch.cat([logs_R.new_zeros(before), logs_R, logs_R.new_zeros(after)])
    return KeyBias(logits_S, conditions.text_1TD.shape[1] + image_tokens)


@torch.inference_mode()
def decode(autoencoder: Autoencoder, latents_1LC: Tensor, grid: tuple[int, int], banded: bool = False) -> Picture:
    """One picture from its final latent tokens; `banded` takes less memory."""
    weight = autoencoder.decoder.conv_in.weight
    latents = tokens_to_grid(latents_1LC, grid).to(weight.device, weight.dtype)
    return to_picture((decode_banded(autoencoder, latents) if banded else autoencoder.decode(latents))[0])


@torch.inference_mode()
def preview(autoencoder: Autoencoder, clean_1LC: Tensor, grid: tuple[int, int]) -> Picture:
    """A small picture, at most `PREVIEW_PX` px long, of clean latent tokens: they are averaged, then decoded.

    The decoder is used because colors are not a linear function of latents that holds for every autoencoder; at this
    size it costs what a 256x256 picture costs, whatever is drawn. Averages are taken over the positions that the
    channels stand for, two by two in a token, and not over tokens, which would blur twice as much.
    """
    weight = autoencoder.decoder.conv_in.weight
    latents = F.pixel_shuffle(tokens_to_grid(clean_1LC, grid), 2)
    factor = -(-max(latents.shape[2:]) // (PREVIEW_PX // _PIXELS_PER_LATENT))
    small = F.avg_pool2d(latents, factor, ceil_mode=True)
    rows, columns = small.shape[2:]
    even = F.pad(small, (0, columns % 2, 0, rows % 2), mode="replicate")
    image = autoencoder.decode(F.pixel_unshuffle(even, 2).to(weight.device, weight.dtype))[0]
    return to_picture(image[:, : rows * _PIXELS_PER_LATENT, : columns * _PIXELS_PER_LATENT])


def _guidance_tensor(transformer: Flux2Transformer, guidance: float | None, batch: int) -> Tensor | None:
    """The scale for a transformer that embeds one; others get it from classifier-free guidance or not at all."""
    if transformer.guidance_in is None or guidance is None:
        return None
    return torch.full((batch,), guidance, device=transformer.img_in.weight.device)
