"""The autoencoder's own objective."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from licht.model.autoencoder import Autoencoder
from licht.recipes.nano import nano_autoencoder
from licht.training.autoencoder import AutoencoderBatch, AutoencoderModule
from licht.training.build import autoencoder_config, initialise_autoencoder
from tests.training.runs import TINY

LEVELS = torch.tensor([0.0, 0.5, 1.0, 2.0])


def _module(noise: float) -> AutoencoderModule:
    torch.manual_seed(0)
    autoencoder = Autoencoder(autoencoder_config(TINY))
    initialise_autoencoder(autoencoder)
    return AutoencoderModule(autoencoder, replace(nano_autoencoder().autoencoder, noise=noise))


def _decoded_latents(module: AutoencoderModule) -> tuple[Tensor, Tensor]:
    """(latents that the decoder was given, means of the encoder)."""
    given: list[Tensor] = []
    hook = module.autoencoder.decoder.register_forward_pre_hook(lambda _, args: given.append(args[0].detach()))
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(4, 3, 64, 64, generator=generator) * 2 - 1
    noise = torch.randn(4, TINY.z_channels, 8, 8, generator=generator)
    with torch.no_grad():
        module(AutoencoderBatch(image, noise, LEVELS, None))
        mean, _ = module.autoencoder.encode_moments(image)
    hook.remove()
    return given[0], mean


def test_noise_is_in_proportion_to_the_latents() -> None:
    module = _module(noise=2.0)
    last = module.autoencoder.encoder.quant_conv
    assert isinstance(last, nn.Conv2d)
    with torch.no_grad():  # hardly any noise of the encoder's own
        dict(last.named_parameters())["bias"].narrow(0, TINY.z_channels, TINY.z_channels).fill_(-30)
    shares = []
    for _ in range(2):
        given, mean = _decoded_latents(module)
        spread = mean.std(dim=(0, 2, 3), keepdim=True)
        shares.append(((given - mean) / spread).square().mean((1, 2, 3)).sqrt())
        with torch.no_grad():  # ten times the latents, ten times the noise
            last.weight[: TINY.z_channels] *= 10
            dict(last.named_parameters())["bias"][: TINY.z_channels] *= 10
    assert shares[0] == pytest.approx(LEVELS, abs=0.1)
    assert shares[1] == pytest.approx(LEVELS, abs=0.1)


def test_without_it_the_decoder_gets_the_encoders_own_noise_only() -> None:
    module = _module(noise=0.0)
    given, mean = _decoded_latents(module)
    image = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        _, log_variance = module.autoencoder.encode_moments(image)
    own = ((given - mean) / (0.5 * log_variance).exp()).square().mean((1, 2, 3)).sqrt()
    assert own == pytest.approx(torch.ones(4), abs=0.1)
