"""How well a picture fits a prompt, by the model that drew it: the diffusion classifier, as a ranking of candidates.

A flow model predicts the velocity from a picture to noise. The better a prompt explains a picture, the smaller is the
error of that prediction with the prompt, compared with the error without any; errors of this kind are a bound on the
likelihood (Li et al. 2023, "Your diffusion model is secretly a zero-shot classifier"; Clark and Jaini 2023). Nothing has
to be downloaded, and whatever the model has learned to draw it can also rank.

Shapes: L latent tokens, C channels.
"""

from typing import Final

from torch import Tensor

from licht.sampling.solvers import Velocity
from licht.sampling.start import noised

LEVELS: Final = (0.5, 0.65, 0.8, 0.9)
"""Noise levels at which is asked: what a picture shows is decided here, finer ones only know texture."""
NOISE_SEED: Final = 990
"""All candidates meet the same noise, so that it tells nothing about them."""


def advantage(with_prompt: Velocity, without: Velocity, clean_1LC: Tensor, noise_1LC: Tensor, level: float) -> float:
    """By which part of the error the prompt makes the prediction better at one noise level; negative if worse."""
    noisy = noised(clean_1LC, noise_1LC, level)
    target = noise_1LC - clean_1LC
    told, untold = ((velocity(noisy, level) - target).square().mean() for velocity in (with_prompt, without))
    return float((untold - told) / untold)
