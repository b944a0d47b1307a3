"""The semantic regulariser: labels are what stands in the picture, and the latents learn to tell them."""

from dataclasses import replace
from pathlib import Path

import torch

from licht.recipes.nano import nano_autoencoder
from licht.training.assemble import assemble
from licht.training.autoencoder import AutoencoderTask
from licht.training.config import Task
from licht.training.loop import Rank
from licht.training.rendered import mixed_scene
from licht.training.semantic import COLORS, KINDS, MATERIALS, UNKNOWN, mixed_labels, position_labels, semantic_loss
from licht.world.scene import Character, Floor, Lettering, Scene, Thing
from tests.training.runs import TINY


def test_labels_say_what_stands_where() -> None:
    cube = Thing("cube", "red", material="metal", x=-1.0)
    scene = Scene(
        subjects=(cube, Character("round", "blue", "pink", x=1.0)),
        floor=Floor("plain", "gray"),
        lettering=Lettering(("SUN",), size="large"),
    )
    (labels,) = position_labels([scene], 128, 128)
    assert labels.shape == (16, 16, 3)
    seen = {KINDS[kind] for kind in labels[..., 0].unique().tolist()}
    assert seen == {"floor", "lettering", "cube", "round character"}
    of_cube = labels[labels[..., 0] == KINDS.index("cube")].unique(dim=0)
    assert of_cube.tolist() == [[KINDS.index("cube"), COLORS.index("red"), MATERIALS.index("metal")]]
    columns = (labels[..., 0] == KINDS.index("cube")).nonzero()[:, 1]
    assert columns.float().mean() < 8  # it stands on the left
    of_floor = labels[labels[..., 0] == KINDS.index("floor")]
    assert of_floor[:, 1:].unique().tolist() == [UNKNOWN]


def test_maps_have_no_labels() -> None:
    labels = mixed_labels(0)(8, 2)
    assert mixed_scene(0, 9) is None
    assert labels[1].unique().tolist() == [UNKNOWN]
    assert labels[0, ..., 0].max() < len(KINDS)
    assert torch.equal(mixed_labels(0)(8, 1)[0], labels[0])


def test_nothing_to_tell_costs_nothing() -> None:
    logits = torch.randn(1, len(KINDS) + len(COLORS) + len(MATERIALS), 2, 2, requires_grad=True)
    loss = semantic_loss(logits, torch.full((1, 2, 2, 3), UNKNOWN, dtype=torch.uint8))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert logits.grad.count_nonzero() == 0


def test_the_autoencoder_learns_to_tell(tmp_path: Path) -> None:
    recipe = nano_autoencoder()
    recipe = replace(
        recipe,
        networks=TINY,
        data=replace(recipe.data, pictures=288, crop_px=32),
        autoencoder=replace(recipe.autoencoder, semantic=0.5),
    )
    task = assemble(recipe, tmp_path, tmp_path, torch.device("cpu"), {}, lambda *_: None, lambda *_: None)
    assert isinstance(task, AutoencoderTask)
    assert recipe.task is Task.AUTOENCODER
    optimizer = torch.optim.Adam(task.module.parameters(), 1e-2)
    told = []
    for step in range(40):
        terms = task.module(task.batch(step, Rank()))
        torch.stack(list(terms.values())).sum().backward()
        gradient = task.autoencoder.encoder.conv_in.weight.grad
        assert gradient is not None
        assert gradient.abs().max() > 0
        optimizer.step()
        optimizer.zero_grad()
        told.append(float(terms["semantic"].detach()))
    assert sum(told[-5:]) < 0.7 * sum(told[:5])
