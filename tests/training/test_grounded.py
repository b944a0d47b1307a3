"""What stands where: labels against the maps they come from, and what a layer learns to tell."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from licht.core.errors import InvalidSettings
from licht.model.positions import image_ids, text_ids
from licht.recipes.nano import nano_base
from licht.training.assemble import assemble
from licht.training.config import DataConfig, FlowLoss, Recipe, Source, Stream
from licht.training.grounded import GroundedTask, told_loss
from licht.training.log import read_log
from licht.training.loop import Rank, train
from licht.training.objectives import interpolate, velocity_loss
from licht.training.semantic import COLORS, KINDS, MATERIALS, UNKNOWN
from licht.training.store import StreamStore
from licht.training.trained import open_networks
from licht.training.truth import (
    ENTRIES,
    LETTERS,
    OBJECT_CLASSES,
    POSITION_CLASSES,
    SCENE_CLASSES,
    TruthStore,
    token_truth,
)
from licht.world import vocabulary as v
from licht.world.lettering import overlay_letters, overlay_mask
from licht.world.sample import sample_scene
from licht.world.scene import Camera, Character, Floor, Lettering, Light, Scene, Thing
from tests.training.runs import TINY, alive
from tests.training.test_distil import ENCODER, nothing

SPHERE = Scene(
    floor=Floor(color="gray"),
    subjects=(Thing(shape="sphere", color="red", size="large", material="shiny"),),
    camera=Camera(),
    lettering=Lettering(("SUN",), size="large"),
)
STREAM = Stream("pictures", Source.PICTURE, ("one",), 16, 1.0, size_px=(64, 64), captions=1)


def labels(truth_LK: Tensor, columns: int) -> Tensor:
    """(rows of positions, columns of positions, labels)."""
    four = truth_LK[:, :16].view(-1, columns, 2, 2, 4)
    return four.transpose(1, 2).reshape(-1, 2 * columns, 4)


def test_the_labels_of_a_sphere_under_a_word() -> None:
    truth = token_truth([SPHERE], 128, 96)[0]
    assert truth.shape == (48, ENTRIES)
    assert truth.dtype == torch.uint8
    found = labels(truth, 8)
    kind, color, material = KINDS.index("sphere"), COLORS.index("red"), MATERIALS.index("shiny")
    ball = found[..., 0] == kind
    assert ball.sum() > 4
    assert set(map(tuple, found[ball].tolist())) == {(kind, color, material, UNKNOWN)}
    lettered = found[..., 0] == KINDS.index("lettering")
    assert torch.equal(lettered, found[..., 3] != UNKNOWN)
    for row in found[lettered.any(1)][..., 3].tolist():
        read = [LETTERS[number] for number in row if number != UNKNOWN]
        assert read == sorted(read, key="SUN".index)
        assert set(read) == set("SUN")
    inside = truth[truth[:, 25] != UNKNOWN]
    assert len(inside) > 1
    left, top, right, bottom = (inside[0, 25:29].float() / 254).tolist()
    assert (inside[:, 25:] == inside[0, 25:]).all()
    rows, columns = torch.nonzero(ball, as_tuple=True)
    assert left * 16 - 1 <= int(columns.min()) <= int(columns.max()) <= right * 16
    assert top * 12 - 1 <= int(rows.min()) <= int(rows.max()) <= bottom * 12
    assert abs((left + right) / 2 - 0.5) < 0.05


def test_objects_have_colors_as_numbers_and_every_token_knows_the_scene() -> None:
    dotted = Thing(shape="cube", color="#3366ff", size="small", pattern="dotted", second="#ffffff")
    figure = Character(body="round", body_color="#00ff00", head_color="#ff0000", x=-1.0)
    light, camera = Light(side="right", height="low", warmth="cool", spot="middle"), Camera("high", "far", 1.6)
    scenes = [
        Scene(floor=Floor("wooden"), subjects=(dotted, figure), light=light, camera=camera),
        Scene(floor=Floor("checkered", *v.CHECKERED_FLOORS[1]), subjects=(SPHERE.subjects[0],)),
    ]
    first, second = token_truth(scenes, 128, 128)
    assert first[:, 18:25].unique(dim=0).tolist() == [[v.FLOOR_NAMES.index("wooden"), 1, 0, 2, 2, 2, 2]]
    assert second[:, 18:25].unique(dim=0).tolist() == [[len(v.FLOOR_COLORS) + 1, 0, 1, 1, 0, 1, 1]]
    cube = first[first[:, 16] == v.PATTERNS.index("dotted")]
    assert cube[:, 17].unique().tolist() == [v.SIZES.index("small")]
    assert cube[:, 29:].unique(dim=0).tolist() == [[51, 102, 254, 254, 254, 254]]
    shown = first[(first[:, 16] == UNKNOWN) & (first[:, 25] != UNKNOWN)]
    assert shown[:, 29:].unique(dim=0).tolist() == [[0, 254, 0, 254, 0, 0]]
    plain = second[second[:, 25] != UNKNOWN]
    assert plain[:, 32:].unique().tolist() == [UNKNOWN]


@pytest.mark.parametrize("number", range(6))
def test_letters_stand_where_they_are_drawn(number: int) -> None:
    scene = next(
        found
        for index in range(number * 100, number * 100 + 100)
        if (found := sample_scene("two_lines" if number % 2 else "word", 3, index)).lettering is not None
        and found.lettering.place != "sign"
    )
    assert scene.lettering is not None
    mask = overlay_mask(scene.lettering, 256, 256) >= 128
    boxes = overlay_letters(scene.lettering, 256, 256)
    assert "".join(box.letter for box in boxes) == "".join(scene.lettering.lines)
    drawn = np.argwhere(mask)
    near = np.zeros_like(mask)
    for box in boxes:
        left, right = max(0, round(box.left)), round(box.right)
        near[max(0, round(box.top) - 2) : round(box.bottom) + 4, max(0, left - 2) : right + 2] = True
        # something of every letter that is in the picture is in its own box
        assert right > 256 or left <= 0 or mask[round(box.top) : round(box.bottom) + 1, left:right].any()
    assert near[tuple(drawn.T)].mean() > 0.98


def test_what_is_told_right_costs_nothing_and_what_is_unknown_never() -> None:
    truth = token_truth([SPHERE], 64, 64)
    positions = truth[..., :16].unflatten(2, (4, 4)).unbind(2)
    groups = [
        *((labelled, POSITION_CLASSES) for labelled in positions),
        (truth[..., 16:], OBJECT_CLASSES + SCENE_CLASSES),
    ]
    logits = []
    for labelled, sizes in groups:
        for number, size in enumerate(sizes):
            right = labelled[..., number].long()
            logits.append(50.0 * torch.nn.functional.one_hot(right.masked_fill(right == UNKNOWN, 0), size))
    told = torch.cat([*logits, truth[..., 25:].float() / 254], dim=2)
    assert told_loss(told, truth) < 1e-6
    for reach_or_color in (slice(-10, -6), slice(-6, None)):
        off = told.clone()
        off[..., reach_or_color] += 0.1
        assert float(told_loss(off, truth)) == pytest.approx(0.4, abs=1e-4)
    side = 4 * sum(POSITION_CLASSES) + sum(OBJECT_CLASSES) + len(v.FLOOR_NAMES)
    wrong = told.clone()
    wrong[..., side + v.LIGHT_SIDES.index("right")] = 100.0
    assert float(told_loss(wrong, truth)) == pytest.approx(50.0, abs=1e-3)
    assert float(told_loss(torch.randn_like(told), torch.full_like(truth, UNKNOWN))) == 0


def test_a_store_of_labels_goes_on_and_starts_anew_for_other_rows(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def scenes(stream: Stream, first: int, count: int) -> list[Scene]:
        asked.append((first, count))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return [sample_scene("one", 0, first + at) for at in range(count)]

    path = tmp_path / "truth.bin"
    with pytest.raises(KeyboardInterrupt):
        TruthStore(path, STREAM).fill(scenes, 8, lambda *told: None)
    store = TruthStore(path, STREAM)
    store.fill(scenes, 8, lambda *told: None)
    assert asked == [(0, 8), (8, 8), (8, 8)]
    expected = token_truth([sample_scene("one", 0, at) for at in (3, 12)], 64, 64)
    assert torch.equal(store.rows(torch.tensor([3, 12])), expected)
    larger = replace(STREAM, rows=24)
    TruthStore(path, larger).fill(scenes, 24, lambda *told: None)
    assert asked[-1] == (0, 24)


def small(steps: int) -> Recipe:
    base = nano_base()
    optim = replace(base.optim, steps=steps, batch=8, warmup_steps=2, autocast=False, ema=0.9)
    networks = replace(TINY, depth=2, depth_single=2)
    flow = FlowLoss(grounded=0.1)
    return replace(
        base, networks=networks, optim=optim, data=DataConfig(streams=(STREAM,)), flow=flow, checkpoint_minutes=0.0
    )


def task_of(recipe: Recipe, folder: Path) -> GroundedTask:
    def rows(stream: Stream, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        latents = np.random.default_rng(first).normal(0, 0.1, size=(count, 16, 32)).astype(np.float16)
        ids, _ = ENCODER(["a large red sphere on a gray floor"] * count)
        return latents, np.zeros((count, 1, 32), np.float16), ids[:, None]

    store = StreamStore(folder, STREAM, 32, TINY.text_length)
    store.fill(rows, 8, lambda *told: None)
    truth = TruthStore(folder / "truth.bin", STREAM)
    truth.fill(lambda stream, first, count: [SPHERE] * count, 8, lambda *told: None)
    return GroundedTask(recipe, [store], ENCODER, torch.device("cpu"), nothing, {STREAM.name: truth})


def test_a_layer_learns_to_tell_and_the_map_is_left_behind(tmp_path: Path) -> None:
    recipe = small(40)
    train(task_of(recipe, tmp_path / "data"), recipe, tmp_path / "run", 1, lambda report: None)
    logged = [line for line in read_log(tmp_path / "run") if "grounded" in line]
    assert logged[-1]["grounded"] < 0.7 * logged[0]["grounded"]
    assert logged[-1]["velocity"] < logged[0]["velocity"]
    networks = open_networks(tmp_path / "run", recipe.networks)
    assert not any("teller" in name for name in networks.state_dict())


def test_the_velocity_term_is_the_plain_one_and_ranks_share_a_batch(tmp_path: Path) -> None:
    task = task_of(small(1), tmp_path)
    alive(task.module, 4)
    batch = task.batch(0, Rank())
    rows = batch.rows
    with torch.no_grad():
        terms = task.module(batch)
        x, target = interpolate(rows.x0_BLC, rows.noise_BLC, rows.t_B)
        expected = velocity_loss(task.networks.velocity(rows, x, rows.t_B), target).mean()
    assert torch.equal(terms["velocity"], expected)
    second = task.batch(0, Rank(1, 2))
    assert torch.equal(second.rows.x0_BLC, rows.x0_BLC[1::2])
    assert torch.equal(second.truth_BLK, batch.truth_BLK[1::2])


def test_errors_in_tokens_that_show_something_can_count_more(tmp_path: Path) -> None:
    recipe = replace(small(1), flow=FlowLoss(objects=3.0))
    task = task_of(recipe, tmp_path)
    alive(task.networks, 4)
    batch = task.batch(0, Rank())
    rows = batch.rows
    shown = (labels(batch.truth_BLK[0], 4)[..., 0] != KINDS.index("floor")).view(4, 2, 4, 2).any(3).any(1).flatten()
    assert 0 < shown.sum() < 16
    with torch.no_grad():
        terms = task.module(batch)
        x, target = interpolate(rows.x0_BLC, rows.noise_BLC, rows.t_B)
        error_BL = (task.networks.velocity(rows, x, rows.t_B) - target).square().mean(2)
    # four parts of an error there to one part elsewhere
    expected = (4 * error_BL[:, shown].sum(1) + error_BL[:, ~shown].sum(1)) / (4 * shown.sum() + (~shown).sum())
    assert set(terms) == {"velocity"}
    assert float(terms["velocity"]) == pytest.approx(float(expected.mean()), rel=1e-5)
    assert float(terms["velocity"]) != pytest.approx(float(error_BL.mean()), rel=1e-3)
    assert not any("teller" in name for name in task.module.state_dict())
    both = task_of(replace(small(1), flow=FlowLoss(objects=3.0, grounded=0.1)), tmp_path)
    both.networks.load_state_dict(task.networks.state_dict())
    with torch.no_grad():
        assert float(both.module(batch)["velocity"]) == pytest.approx(float(terms["velocity"]), rel=1e-5)


def test_every_block_is_watched_and_nothing_changes(tmp_path: Path) -> None:
    task = task_of(small(1), tmp_path)
    alive(task.networks, 4)
    network, seen = task.networks.transformer, dict[int, Tensor]()
    x, text, t = torch.randn(2, 4, 32), torch.randn(2, 3, network.config.context_in_dim), torch.tensor([0.2, 0.9])
    arguments = (x, image_ids((2, 2)), text, text_ids(3), t)
    with torch.no_grad():
        watched = network(*arguments, watch=seen.__setitem__)
        assert torch.equal(watched, network(*arguments))
        last = network.final_layer(seen[3], network.conditioning(t, None, x.dtype))
    assert sorted(seen) == [0, 1, 2, 3]
    assert torch.equal(last, watched)


@pytest.mark.parametrize("what", ["both", "both_objects", "folder", "folder_objects"])
def test_what_cannot_be_grounded_is_refused_before_anything_is_prepared(what: str, tmp_path: Path) -> None:
    recipe = small(1)
    if what.endswith("objects"):
        recipe = replace(recipe, flow=FlowLoss(objects=1.0))
    if what.startswith("both"):
        recipe = replace(recipe, flow=replace(recipe.flow, self_flow=0.8))
    else:
        own = Stream("own", Source.FOLDER, (), 0, 1.0, captions=1, folder=str(tmp_path))
        recipe = replace(recipe, data=DataConfig(streams=(own,)))
    with pytest.raises(InvalidSettings, match=r"flow\.grounded"):
        assemble(
            recipe, tmp_path / "run", tmp_path / "data", torch.device("cpu"), {}, lambda *told: None, lambda *told: None
        )
    assert list(tmp_path.iterdir()) == []
