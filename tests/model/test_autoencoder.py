import pytest
import torch
from torch import Tensor

from licht.model.autoencoder import AttnBlock, Autoencoder, Downsample, Upsample, patchify, unpatchify
from tests.support import models


@pytest.fixture(scope="module")
def network() -> Autoencoder:
    return models.autoencoder()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_patches_are_numbered_channel_row_column() -> None:
    z = torch.arange(2 * 4 * 6.0).reshape(1, 2, 4, 6)
    patches = patchify(z)
    assert patches.shape == (1, 8, 2, 3)
    for channel in range(2):
        for row in range(2):
            for column in range(2):
                assert torch.equal(patches[0, channel * 4 + row * 2 + column], z[0, channel, row::2, column::2])
    assert torch.equal(unpatchify(patches), z)


def test_whitening_and_back(network: Autoencoder) -> None:
    z = random(2, 16, 3, 5)
    torch.testing.assert_close(network.unwhiten(network.whiten(z)), z, atol=1e-5, rtol=1e-5)
    assert network.bn.running_mean is not None
    assert network.bn.running_var is not None
    mean, variance = network.bn.running_mean, network.bn.running_var
    wanted = (z - mean[:, None, None]) / torch.sqrt(variance + 1e-4)[:, None, None]
    torch.testing.assert_close(network.whiten(z), wanted)
    torch.testing.assert_close(network.bn(z), wanted)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (80, 48), (16, 128)])
def test_an_image_becomes_a_sixteenth_and_comes_back(network: Autoencoder, height: int, width: int) -> None:
    image = random(1, 3, height, width).clamp(-1, 1)
    latents = network.encode(image)
    assert latents.shape == (1, 16, height // 16, width // 16)
    assert 0.05 < latents.std() < 20
    decoded = network.decode(latents)
    assert decoded.shape == image.shape
    assert decoded.std() > 0.01


def test_encoding_is_the_mean_and_not_a_sample(network: Autoencoder) -> None:
    image = random(1, 3, 32, 32)
    mean, log_variance = network.encode_moments(image)
    assert mean.shape == log_variance.shape == (1, 4, 4, 4)
    assert torch.equal(network.encode(image), network.whiten(patchify(mean)))
    assert torch.equal(network.encode(image), network.encode(image))


def test_pictures_do_not_see_one_another(network: Autoencoder) -> None:
    images = random(2, 3, 32, 32)
    torch.testing.assert_close(network.encode(images)[1:], network.encode(images[1:]), atol=1e-5, rtol=1e-5)


def test_halving_pads_on_the_right_and_below() -> None:
    layer = Downsample(1)
    with torch.no_grad():
        layer.conv.weight.fill_(1.0)
        layer.conv.bias = None
    halved = layer(torch.ones(1, 1, 4, 4))
    assert halved[0, 0].tolist() == [[9.0, 6.0], [6.0, 4.0]]


def test_doubling_repeats_every_pixel() -> None:
    layer = Upsample(1)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, 1, 1] = 1.0
        layer.conv.bias = None
    doubled = layer(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2))
    assert doubled[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_attention_looks_everywhere() -> None:
    block = models.network(AttnBlock(8, 4))
    x = random(1, 8, 3, 4)
    moved = x.clone()
    moved[0, :, 2, 3] += 1.0
    assert (block(x) - block(moved))[0, :, 0, 0].abs().max() > 1e-6
