import torch

from licht.model.linear import StackedLinear


def test_stacked_rows_are_one_matrix() -> None:
    blocks = [torch.randn(rows, 6, generator=torch.Generator().manual_seed(rows)) for rows in (3, 5, 2)]
    layer = StackedLinear(blocks)
    x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer.weight, torch.cat(blocks))
    torch.testing.assert_close(layer(x), x @ torch.cat(blocks).T, atol=1e-6, rtol=1e-6)
    assert layer(x).shape == (2, 4, 10)


def test_blocks_are_used_where_they_lie() -> None:
    blocks = [torch.zeros(3, 6), torch.zeros(3, 6)]
    layer = StackedLinear(blocks)
    assert [block.data_ptr() for block in layer.blocks] == [block.data_ptr() for block in blocks]
    assert not any(parameter.requires_grad for parameter in layer.parameters())
