import dataclasses

import pytest
import torch
from torch import Tensor

from licht.model.linear import StackedLinear
from licht.model.positions import image_ids, reference_ids, text_ids
from licht.model.transformer import DoubleStreamBlock, Flux2Transformer, ReferenceCache, timestep_embedding
from tests.support import models

GRID, TEXT_TOKENS = (3, 4), 5
IMAGE_TOKENS = 12


def assert_close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> Flux2Transformer:
    return models.transformer()


@dataclasses.dataclass(frozen=True)
class Inputs:
    x: Tensor
    txt: Tensor
    t: Tensor
    x_ids: Tensor = dataclasses.field(default_factory=lambda: image_ids(GRID))

    def run(self, network: Flux2Transformer, cache: ReferenceCache | None = None, bias: Tensor | None = None) -> Tensor:
        out: Tensor = network(self.x, self.x_ids, self.txt, text_ids(self.txt.shape[1]), self.t, cache=cache, bias=bias)
        return out


def inputs(batch: int = 1) -> Inputs:
    x, txt = random(batch, IMAGE_TOKENS, 16, seed=1), random(batch, TEXT_TOKENS, 48, seed=2)
    return Inputs(x, txt, torch.linspace(0.3, 0.9, batch))


def test_the_velocity_has_the_shape_of_the_tokens_and_is_alive(network: Flux2Transformer) -> None:
    out = inputs(2).run(network)
    assert out.shape == (2, IMAGE_TOKENS, 16)
    assert out.dtype == torch.float32
    assert 0.1 < out.std() < 10


def test_every_input_matters(network: Flux2Transformer) -> None:
    given = inputs()
    out = given.run(network)
    for changed in (
        dataclasses.replace(given, x=given.x + 0.1),
        dataclasses.replace(given, txt=given.txt + 0.1),
        dataclasses.replace(given, t=given.t - 0.1),
        dataclasses.replace(given, x_ids=image_ids((4, 3))),
        dataclasses.replace(given, x_ids=image_ids(GRID, t=10)),
    ):
        assert (changed.run(network) - out).abs().max() > 1e-3


def test_pictures_do_not_see_one_another(network: Flux2Transformer) -> None:
    together = inputs(3).run(network)
    for row in range(3):
        given = inputs(3)
        part = slice(row, row + 1)
        alone = Inputs(given.x[part], given.txt[part], given.t[part])
        assert_close(together[part], alone.run(network))


def test_only_positions_tell_tokens_apart(network: Flux2Transformer) -> None:
    given = inputs()
    order = torch.randperm(IMAGE_TOKENS, generator=torch.Generator().manual_seed(3))
    shuffled = dataclasses.replace(given, x=given.x[:, order], x_ids=given.x_ids[order])
    assert_close(shuffled.run(network), given.run(network)[:, order])


def test_one_time_a_token_is_the_same_as_one_time_for_all(network: Flux2Transformer) -> None:
    given = inputs(2)
    per_token = dataclasses.replace(given, t=given.t[:, None].expand(-1, IMAGE_TOKENS))
    assert_close(per_token.run(network), given.run(network))


def test_times_of_single_tokens_matter(network: Flux2Transformer) -> None:
    given = inputs()
    times = given.t[:, None].repeat(1, IMAGE_TOKENS)
    times[:, -1] = 0.0
    mixed = dataclasses.replace(given, t=times).run(network)
    assert (mixed - given.run(network))[:, -1].abs().max() > 1e-2


def test_tokens_that_nobody_may_look_at_might_as_well_be_absent(network: Flux2Transformer) -> None:
    given = inputs()
    extra = random(1, 4, 16, seed=5)
    x, ids = torch.cat([given.x, extra], dim=1), torch.cat([given.x_ids, reference_ids([(2, 2)])])
    more = dataclasses.replace(given, x=x, x_ids=ids)
    seen = more.run(network)[:, :IMAGE_TOKENS]
    assert (seen - given.run(network)).abs().max() > 1e-3
    total = TEXT_TOKENS + IMAGE_TOKENS + 4
    bias = torch.zeros(total, total)
    bias[:, -4:] = float("-inf")
    hidden = more.run(network, bias=bias)[:, :IMAGE_TOKENS]
    assert_close(hidden, given.run(network))


def reference_cache(network: Flux2Transformer, batch: int = 1) -> ReferenceCache:
    tokens = random(1, 7, 16, seed=4).expand(batch, -1, -1)
    return network.reference_cache(tokens, reference_ids([(2, 2), (1, 3)]))


def test_a_cache_of_one_serves_a_batch(network: Flux2Transformer) -> None:
    given = inputs(3)
    shared = given.run(network, cache=reference_cache(network))
    assert_close(shared, given.run(network, cache=reference_cache(network, 3)))
    assert (shared - given.run(network)).abs().max() > 1e-3


def test_a_cache_holds_keys_and_values_of_every_block(network: Flux2Transformer) -> None:
    cache = reference_cache(network)
    assert (len(cache.double), len(cache.single)) == (2, 2)
    assert {tensor.shape for pair in cache.double + cache.single for tensor in pair} == {(1, 2, 7, 16)}
    assert cache.memory_bytes == 4 * 2 * (2 * 7 * 16) * 4


def test_the_cache_is_the_same_as_references_at_time_zero_that_see_only_themselves(network: Flux2Transformer) -> None:
    given = inputs()
    references, ids = random(1, 7, 16, seed=4), reference_ids([(2, 2), (1, 3)])
    times = torch.cat([given.t[:, None].expand(-1, IMAGE_TOKENS), torch.zeros(1, 7)], dim=1)
    joint = Inputs(torch.cat([given.x, references], dim=1), given.txt, times, torch.cat([given.x_ids, ids]))
    total = TEXT_TOKENS + IMAGE_TOKENS + 7
    bias = torch.zeros(total, total)
    bias[-7:, :-7] = float("-inf")
    wanted = joint.run(network, bias=bias)[:, :IMAGE_TOKENS]
    assert_close(given.run(network, cache=reference_cache(network)), wanted)


def test_rows_in_several_matrices_draw_the_same() -> None:
    network, given = models.transformer(), inputs()
    fused = given.run(network)
    for block in network.double_blocks:
        assert isinstance(block, DoubleStreamBlock)
        for attn in (block.img_attn, block.txt_attn):
            attn.qkv = StackedLinear(attn.qkv.weight.chunk(3))  # type: ignore[assignment]
    assert_close(given.run(network), fused)


def test_queries_and_keys_may_be_rotated_in_pieces(network: Flux2Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        whole = inputs(2).run(network)
        monkeypatch.setattr("licht.model.transformer._CACHED", 200)
        assert torch.equal(inputs(2).run(network), whole)
    assert torch.equal(inputs(2).run(network), whole)


def test_guidance_is_given_exactly_where_it_is_embedded(network: Flux2Transformer) -> None:
    dev, given = models.transformer(models.DEV_TRANSFORMER), inputs()
    arguments = (given.x, given.x_ids, given.txt, text_ids(TEXT_TOKENS), given.t)
    weak, strong = (dev(*arguments, torch.tensor([scale])) for scale in (1.0, 4.0))
    assert (weak - strong).abs().max() > 1e-3
    with pytest.raises(ValueError, match="needs a guidance scale"):
        dev(*arguments)
    with pytest.raises(ValueError, match="does not take a guidance scale"):
        network(*arguments, torch.tensor([4.0]))


def test_guidance_counts_for_every_token_of_its_own_time() -> None:
    dev, given = models.transformer(models.DEV_TRANSFORMER), inputs(2)
    scale = torch.tensor([2.0, 5.0])
    shared = dev(given.x, given.x_ids, given.txt, text_ids(TEXT_TOKENS), given.t, scale)
    times = given.t[:, None].expand(-1, IMAGE_TOKENS)
    assert_close(dev(given.x, given.x_ids, given.txt, text_ids(TEXT_TOKENS), times, scale), shared)


def test_times_are_sinusoids_of_thousands() -> None:
    embedded = timestep_embedding(torch.tensor([0.0, 0.25]), dim=8)
    assert embedded[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    frequencies = torch.tensor([1.0, 0.1, 0.01, 0.001])
    torch.testing.assert_close(embedded[1], torch.cat([(250 * frequencies).cos(), (250 * frequencies).sin()]))
    assert timestep_embedding(torch.zeros(2, 3)).shape == (2, 3, 256)


def test_bfloat16_draws_nearly_the_same(network: Flux2Transformer) -> None:
    given, half = inputs(), models.transformer().bfloat16()
    rounded = dataclasses.replace(given, x=given.x.bfloat16(), txt=given.txt.bfloat16())
    exact, out = given.run(network), rounded.run(half)
    assert out.dtype == torch.bfloat16
    assert (out.float() - exact).norm() / exact.norm() < 0.05
