from dataclasses import replace
from pathlib import Path

import pytest
import torch

from licht.cli.main import run as command
from licht.core.errors import InvalidCheckpoint, InvalidSettings, NotAvailable
from licht.evaluation.ceiling import recognised
from licht.evaluation.judge import BOX, RGB, Judge, JudgeNetwork
from licht.evaluation.judge_training import (
    JudgeBatch,
    JudgeModule,
    export_judge,
    heat_map,
    judge_losses,
    judge_scene,
    targets_of,
)
from licht.evaluation.seen import OBJECT_CATEGORIES, PICTURE_CATEGORIES, truth
from licht.recipes.nano import nano_judge
from licht.training.config import OptimConfig
from licht.training.ema import EMA
from licht.training.muon import KernelMuon, orthogonalised
from licht.training.optim import build_optimizers
from licht.training.state import save_state
from licht.world.render import render
from licht.world.sample import sample_scene

CHANNELS = 1 + BOX + RGB + sum(len(names) for names in OBJECT_CATEGORIES.values())


def answers_to(targets_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Network outputs that say exactly what is true of the first scenes, and are sure of it."""
    scenes = [judge_scene(1, index) for index in range(targets_rows)]
    targets = targets_of(scenes)
    cells = torch.zeros(targets_rows, CHANNELS, 32, 32)
    cells[:, 0] = torch.logit(heat_map(targets.at_BN).clamp(1e-6, 1 - 1e-6))
    for row in range(targets_rows):
        for number, at in enumerate(targets.at_BN[row].tolist()):
            if at < 0:
                continue
            answer = torch.zeros(CHANNELS)
            answer[1 : 1 + BOX + RGB] = targets.numbers_BNK[row, number]
            first = 1 + BOX + RGB
            for column, names in enumerate(OBJECT_CATEGORIES.values()):
                answer[first + max(int(targets.categories_BNK[row, number, column]), 0)] = 20.0
                first += len(names)
            answer[0] = cells[row, 0, at // 32, at % 32]
            cells[row, :, at // 32, at % 32] = answer
    picture = torch.zeros(targets_rows, sum(len(names) for names in PICTURE_CATEGORIES.values()))
    first = 0
    for column, names in enumerate(PICTURE_CATEGORIES.values()):
        picture[torch.arange(targets_rows), first + targets.picture_BK[:, column]] = 20.0
        first += len(names)
    return cells, picture


class Sure(JudgeNetwork):
    """Answers what it was given."""

    def __init__(self, cells: torch.Tensor, picture: torch.Tensor) -> None:
        super().__init__()
        self.answers = (cells, picture)

    def forward(self, image_BCHW: torch.Tensor):  # type: ignore[no-untyped-def] # as the network's own
        from licht.evaluation.judge import Outputs

        return Outputs(*self.answers)


def test_answers_that_are_right_are_read_as_the_truth() -> None:
    cells, picture = answers_to(24)
    seen = Judge(Sure(cells, picture)).look(torch.zeros(24, 128, 128, 3, dtype=torch.uint8))
    right = [truth(judge_scene(1, index)) for index in range(24)]
    found = recognised(seen, right)
    assert found["all"] == 1.0
    for one, true in zip(seen, right, strict=True):
        assert sorted(each.hex for each in one.objects) == sorted(each.hex for each in true.objects)


def test_losses_vanish_for_right_answers_and_not_for_others() -> None:
    cells, picture = answers_to(8)
    targets = targets_of([judge_scene(1, index) for index in range(8)])
    right = judge_losses(cells, picture, targets)
    assert all(float(term) < 0.3 for term in right.values())
    other = targets_of([judge_scene(1, index) for index in range(8, 16)])
    wrong = judge_losses(cells, picture, other)
    assert all(float(wrong[name]) > 3 * float(right[name]) for name in right)


def test_the_judge_learns() -> None:
    torch.manual_seed(0)
    scenes = [judge_scene(2, index) for index in range(4)]
    image = render(scenes, 128, 128).permute(0, 3, 1, 2).float() / 127.5 - 1
    batch, module = JudgeBatch(image, targets_of(scenes)), JudgeModule()
    optimizers = build_optimizers(
        module.named_parameters(), OptimConfig(steps=9, batch=8, adamw_lr=3e-3, muon_lr=3e-3, muon_kernels=True)
    )
    assert any(isinstance(optimizer, KernelMuon) for optimizer in optimizers)
    losses = []
    for _ in range(8):
        loss = torch.stack(list(module(batch).values())).sum()
        losses.append(float(loss.detach()))
        module.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_orthogonalised_kernels_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((16, 48), (48, 16)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert 0.5 < float(values.min()) < float(values.max()) < 1.4


def test_judges_are_exported_and_read_back(tmp_path: Path) -> None:
    module = JudgeModule()
    recipe = replace(nano_judge(), name="tiny")
    save_state(tmp_path / "run", 1, module, EMA(module, 0.9), [], recipe)
    assert command(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    read = Judge.load(tmp_path / "out" / "judge.safetensors")
    for name, tensor in module.network.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(read.network.state_dict()[name], tensor.half().float()), name


def test_what_is_no_judge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match="train one with `licht train nano_judge`"):
        Judge.load(tmp_path / "nothing")
    (tmp_path / "broken").write_bytes(b"broken")
    with pytest.raises(InvalidCheckpoint, match="is not a judge of this version"):
        Judge.load(tmp_path / "broken")
    from safetensors.torch import save_file

    save_file({"stem.0.weight": JudgeNetwork().state_dict()["stem.0.weight"]}, tmp_path / "half")
    with pytest.raises(InvalidCheckpoint, match="lacks"):
        Judge.load(tmp_path / "half")
    module = JudgeModule()
    other = replace(nano_judge(), task=nano_judge().task.FLOW)
    save_state(tmp_path / "run", 1, module, EMA(module, 0.9), [], other)
    with pytest.raises(InvalidSettings, match="has not trained a judge"):
        export_judge(tmp_path / "run", tmp_path / "out")


def test_the_judge_that_is_shipped_sees_what_is_there() -> None:
    """A floor under the ceilings that `licht eval` prints: 40 held-out pictures of one object."""
    scenes = [sample_scene("one", 321, index, split="test") for index in range(40)]
    found = recognised(Judge.load().look(render(scenes, 128, 128)), [truth(scene) for scene in scenes])
    assert found["found"] > 0.95
    assert found["floor"] > 0.9
    assert found["color"] > 0.8
    assert found["kind"] > 0.8
