import pytest
import torch
from torch import nn

from licht.model.linear import StackedLinear
from licht.model.lora import Adapter, Adapters, Branch, Delta, Dense, Kronecker, LowRank


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


class Pair(nn.Module):
    """Two linears of different widths, one of them in three row blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 12, bias=False)
        self.b = StackedLinear([random(4, 12, seed=1), random(4, 12, seed=2), random(4, 12, seed=3)])
        self.a.weight = nn.Parameter(random(12, 8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(self.a(x).relu())
        return out


DELTAS: dict[str, tuple[Delta, Delta]] = {
    "low rank": (LowRank(random(2, 8), random(12, 2)), LowRank(random(3, 12), random(4, 3))),
    "kronecker": (Kronecker(random(3, 2), random(4, 4)), Kronecker(random(2, 4), random(2, 3))),
    "dense": (Dense(random(12, 8)), Dense(random(4, 12))),
}


def adapter(kind: str, magnitude: str | None = None) -> Adapter:
    """One branch on the whole of `a`, one on the middle rows of `b`."""
    a, b = DELTAS[kind]
    lengths = {
        None: (None, None),
        "rows": (random(12).abs() + 0.5, random(4).abs() + 0.5),
        "columns": (random(1, 8).abs() + 0.5, random(1, 12).abs() + 0.5),
    }[magnitude]
    return Adapter({"a": (Branch(a, 0, 12, lengths[0]),), "b": (Branch(b, 4, 4, lengths[1]),)})


def attached(network: nn.Module, **adapters: Adapter) -> Adapters:
    made = Adapters(network)
    for name, one in adapters.items():
        made.add(name, one, torch.float32, torch.device("cpu"))
    return made


@pytest.mark.parametrize("kind", DELTAS)
def test_a_change_is_applied_as_its_matrix_would_be(kind: str) -> None:
    for delta in DELTAS[kind]:
        x = random(5, 3, delta.matrix().shape[1])
        torch.testing.assert_close(delta.apply(x), x @ delta.matrix().T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("magnitude", [None, "rows", "columns"])
@pytest.mark.parametrize("kind", DELTAS)
def test_a_branch_beside_the_weights_equals_merged_weights(kind: str, magnitude: str | None) -> None:
    network, merged, x = Pair(), Pair(), random(4, 5, 8)
    adapters = attached(network, one=adapter(kind, magnitude), two=adapter("low rank"))
    with adapters.using([{"one": 0.7, "two": -1.5}]):
        beside = network(x)
    attached(merged, one=adapter(kind, magnitude), two=adapter("low rank")).merge({"one": 0.7, "two": -1.5})
    plain = merged(x)
    assert not torch.allclose(plain, network(x))
    torch.testing.assert_close(beside, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("magnitude", [None, "rows", "columns"])
def test_dora_gives_the_rows_or_columns_their_lengths(magnitude: str | None) -> None:
    network = Pair()
    before = network.a.weight.clone()
    made = adapter("low rank", magnitude)
    attached(network, one=made).merge({"one": 1.0})
    changed = before + made.branches["a"][0].delta.matrix()
    lengths = made.branches["a"][0].magnitude
    if magnitude is None or lengths is None:
        torch.testing.assert_close(network.a.weight, changed)
    else:
        axis = 1 if magnitude == "rows" else 0
        torch.testing.assert_close(network.a.weight.norm(dim=axis), lengths.flatten(), rtol=1e-5, atol=1e-5)
        direction = nn.functional.cosine_similarity(network.a.weight, changed, dim=axis)
        torch.testing.assert_close(direction, torch.ones_like(direction))


def test_rows_of_one_batch_use_different_adapters() -> None:
    network, x = Pair(), random(4, 5, 8)
    adapters = attached(network, one=adapter("low rank"), two=adapter("kronecker", "rows"))
    rows = [{"one": 1.0}, {}, {"two": 0.5}, {"one": -0.3, "two": 2.0}]
    with adapters.using(rows):
        together = network(x)
    for number, row in enumerate(rows):
        with adapters.using([row]):
            torch.testing.assert_close(together[number : number + 1], network(x[number : number + 1]))
    torch.testing.assert_close(together[1], network(x)[1])


def test_nothing_changes_outside_the_context_even_after_an_error() -> None:
    network, x = Pair(), random(2, 5, 8)
    plain = network(x)
    adapters = attached(network, one=adapter("low rank"))
    assert torch.equal(network(x), plain)
    with pytest.raises(RuntimeError, match="stop"), adapters.using([{"one": 1.0}]):
        raise RuntimeError("stop")
    assert torch.equal(network(x), plain)
    adapters.remove("one")
    assert adapters.names == ()
    assert torch.equal(network(x), plain)


def test_a_wrong_use_is_refused() -> None:
    network = Pair()
    adapters = attached(network, one=adapter("low rank"))
    with pytest.raises(ValueError, match="'other'"), adapters.using([{"other": 1.0}]):
        pass
    with pytest.raises(ValueError, match="3 rows"), adapters.using([{"one": 1.0}] * 3):
        network(random(2, 5, 8))


def test_memory_is_counted() -> None:
    adapters = attached(Pair(), one=adapter("low rank"))
    assert adapters.memory_bytes == 4 * (2 * 8 + 12 * 2 + 3 * 12 + 4 * 3)


def test_merging_leaves_mapped_weights_alone_and_keeps_the_blocks() -> None:
    network = Pair()
    blocks, first = list(network.b.blocks), network.b.blocks[0].clone()
    attached(network, one=adapter("low rank")).merge({"one": 1.0})
    assert torch.equal(blocks[0], first)
    assert [tuple(block.shape) for block in network.b.blocks] == [(4, 12)] * 3
    assert torch.equal(network.b.blocks[0], first)
    assert not torch.equal(network.b.blocks[1], blocks[1])
