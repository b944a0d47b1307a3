"""The autoencoder's own objective."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from licht.model.autoencoder import Autoencoder
from licht.recipes.nano import nano_autoencoder
from licht.training.autoencoder import AutoencoderBatch, AutoencoderModule, AutoencoderTask
from licht.training.build import autoencoder_config, initialise_autoencoder
from licht.training.ema import EMA
from licht.training.files import weights_digest
from licht.training.loop import Rank
from licht.training.optim import build_optimizers
from licht.training.pictures import PictureStore
from licht.training.state import save_state
from licht.training.trained import latents_digest, open_autoencoder
from tests.training.runs import TINY, autoencoder_run

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


def test_a_decoder_goes_on_alone_and_latents_stay_as_they_are(tmp_path: Path) -> None:
    autoencoder_run(tmp_path / "start")
    start = open_autoencoder(tmp_path / "start")
    recipe = nano_autoencoder()
    recipe = replace(
        recipe,
        networks=TINY,
        start_from=str(tmp_path / "start"),
        autoencoder=replace(recipe.autoencoder, decoder_only=True),
        data=replace(recipe.data, pictures=257),
        optim=replace(recipe.optim, steps=2, warmup_steps=0),
    )
    store = PictureStore(tmp_path / "pictures.bin", 257, (128, 128), {"shows": "noise"})
    noise = torch.randint(256, (257, 128, 128, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    store.fill(lambda first, count: noise[first : first + count], 64, lambda _done, _total: None)
    task = AutoencoderTask(recipe, store, torch.device("cpu"), lambda *_: None, None, start)
    optimizers = build_optimizers(task.module.named_parameters(), recipe.optim)
    for step in range(2):
        sum(task.module(task.batch(step, Rank())).values()).backward()
        for optimizer in optimizers:
            optimizer.step()
    save_state(tmp_path / "run", 2, task.module, EMA(task.module, 0.9), [], recipe, seconds=1.0)

    found = open_autoencoder(tmp_path / "run")
    image = noise[:2].permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.equal(found.encode(image), start.encode(image))
    assert not torch.equal(found.decoder(start.encode_moments(image)[0]), start.decoder(start.encode_moments(image)[0]))
    assert latents_digest(found) == latents_digest(start)
    assert weights_digest(found) != weights_digest(start)
