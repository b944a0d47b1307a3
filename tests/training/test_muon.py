"""Muon as it is shared among processes."""

import pytest
import torch
from torch import nn

from licht.training.muon import SharedMuon, orthogonalised, shares


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((16, 48), (48, 16)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)).float())
        assert 0.5 < float(values.min()) < float(values.max()) < 1.4


def test_of_matrices_it_is_what_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("licht.training.muon.multiplies_bfloat16", lambda device: True)  # as torch takes for granted
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((24, 40), (40, 24), (8, 8))]
    theirs = [nn.Parameter(each.detach().clone()) for each in ours]
    mine = SharedMuon(ours, 0.01, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        mine.step()
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        # an update is about 0.002
        assert float((one - other).detach().abs().max()) < 1e-5


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_matrix_has_one_owner_and_the_work_is_even(count: int) -> None:
    shapes = [(320, 2880), (1280, 320), (320, 320), (320, 320), (256, 512), (2, 2), (2880, 320), (320, 320), (256, 256)]
    owners = shares(shapes, count)
    assert set(owners) <= set(range(count))
    cost = [a * b * min(a, b) for a, b in shapes]
    loads = [sum(c for c, owner in zip(cost, owners, strict=True) if owner == n) for n in range(count)]
    assert max(loads) <= max(*cost, 1.2 * sum(cost) / count)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_iterations_in_float32_give_the_same_up_to_the_rounding_of_bfloat16(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    matrix, found = torch.randn(shape), []
    for fast in (True, False):
        monkeypatch.setattr("licht.training.muon.multiplies_bfloat16", lambda device, fast=fast: fast)
        found.append(orthogonalised(matrix))
    coarse, fine = found
    assert (coarse.dtype, fine.dtype) == (torch.bfloat16, torch.float32)
    assert 0 < float((coarse - fine).norm() / fine.norm()) < 0.03
    assert (
        0.5 < float(torch.linalg.svdvals(fine.float()).min()) <= float(torch.linalg.svdvals(fine.float()).max()) < 1.3
    )
