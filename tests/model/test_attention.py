import pytest
import torch
from torch import Tensor

from licht.model.attention import KeyBias, attention, rotate_pairs, split_heads
from licht.model.positions import rotary_table


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_attention_is_the_formula() -> None:
    q, k, v = random(2, 3, 5, 8), random(2, 3, 7, 8) / 2, random(2, 3, 7, 8) + 1
    weights = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, dim=-1)
    wanted = (weights @ v).transpose(1, 2).reshape(2, 5, 24)
    torch.testing.assert_close(attention(q, k, v), wanted, atol=1e-5, rtol=1e-5)


def test_a_key_that_is_masked_might_as_well_be_absent() -> None:
    q, k, v = random(1, 2, 4, 8), random(1, 2, 6, 8) / 2, random(1, 2, 6, 8) + 1
    keep = torch.tensor([True, True, False, True, False, True])
    absent = attention(q, k[:, :, keep], v[:, :, keep])
    torch.testing.assert_close(attention(q, k, v, bias=keep.expand(1, 1, 4, 6)), absent)
    logits = torch.zeros(6).masked_fill(~keep, float("-inf")).expand(4, 6)
    torch.testing.assert_close(attention(q, k, v, bias=logits), absent)


def test_a_key_head_serves_a_run_of_query_heads() -> None:
    q, k, v = random(1, 6, 4, 8), random(1, 2, 5, 8), random(1, 2, 5, 8) + 1
    repeated = attention(q, k.repeat_interleave(3, dim=1), v.repeat_interleave(3, dim=1))
    torch.testing.assert_close(attention(q, k, v, grouped=True), repeated)


def test_heads_are_consecutive_channels() -> None:
    x = torch.arange(24.0).reshape(1, 2, 12)
    assert split_heads(x, 4)[0, 1].tolist() == [[4, 5, 6, 7], [16, 17, 18, 19]]


def test_rotation_keeps_lengths_and_knows_only_distances() -> None:
    q, k = random(1, 1, 1, 8), random(1, 1, 1, 8) + 1

    def at(x: Tensor, position: int) -> Tensor:
        return rotate_pairs(x, rotary_table(torch.tensor([[0, position, 0, position]]), (2, 2, 2, 2), 2000.0))

    torch.testing.assert_close(at(q, 0), q)
    torch.testing.assert_close(at(q, 40).norm(), q.norm())
    near, far = (at(q, start + 5) * at(k, start) for start in (3, 90))
    torch.testing.assert_close(near.sum(), far.sum(), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(near.sum(), (at(q, 3) * at(k, 3)).sum(), atol=1e-2)


def test_neighbouring_channels_are_a_pair() -> None:
    x = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 1, 4)
    table = torch.tensor([[1j, 1 + 0j]], dtype=torch.complex64)
    assert rotate_pairs(x, table).flatten().tolist() == [0.0, 1.0, 0.0, 1.0]
    assert rotate_pairs(x.bfloat16(), table).dtype == torch.bfloat16


@pytest.mark.parametrize("queries", [0, 3, 5])
def test_a_bias_on_keys_is_softmax_with_weighted_keys(queries: int) -> None:
    q, k, v = random(2, 3, 5, 8), random(2, 3, 7, 8) / 2, random(2, 3, 7, 8) + 1
    strengths = torch.tensor([1.0, 0.25, 1.0, 4.0, 2.0, 1.0, 0.5])
    exponentials = torch.exp(q.double() @ k.double().transpose(-1, -2) / 8**0.5)
    weights = exponentials * torch.where(torch.arange(5)[:, None] < queries, strengths.double(), 1.0)
    wanted = (weights / weights.sum(-1, keepdim=True) @ v.double()).transpose(1, 2).reshape(2, 5, 24)
    found = attention(q, k, v, bias=KeyBias(strengths.log(), queries))
    assert (found.double() - wanted).abs().max() < 2e-6  # measured: 2.5e-7


def test_queries_beyond_those_of_a_bias_see_none_of_it() -> None:
    q, k, v = random(1, 2, 4, 8), random(1, 2, 6, 8) / 2, random(1, 2, 6, 8) + 1
    found = attention(q, k, v, bias=KeyBias(torch.linspace(-1, 1, 6), 1))
    assert torch.equal(found[:, 1:], attention(q[:, :, 1:], k, v))
    assert not torch.allclose(found[:, :1], attention(q[:, :, :1], k, v), atol=1e-2)


@pytest.mark.parametrize("masked", ["no", "boolean", "added"])
def test_training_sees_the_same_attention_and_the_same_gradients(masked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 5, 8, requires_grad=True) for heads in (4, 2, 2))
    keep = torch.ones(5, 5, dtype=torch.bool).tril()
    bias = {"no": None, "boolean": keep, "added": torch.zeros(5, 5).masked_fill(~keep, float("-inf"))}[masked]
    quick = attention(q, k, v, bias=bias, grouped=True)
    gradients = torch.autograd.grad(quick.square().sum(), (q, k, v))
    monkeypatch.setattr("licht.model.attention._SMALL", 0)
    fused = attention(q, k, v, bias=bias, grouped=True)
    torch.testing.assert_close(quick, fused)
    torch.testing.assert_close(gradients, torch.autograd.grad(fused.square().sum(), (q, k, v)))
