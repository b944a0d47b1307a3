from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from licht.cli.main import run as command
from licht.core.errors import InvalidCheckpoint, InvalidSettings, NotAvailable
from licht.evaluation.ceiling import recognised
from licht.evaluation.judge import Judge, corrections, refine
from licht.evaluation.judge_networks import (
    BOX,
    NEAR_PX,
    Glance,
    JudgeNetwork,
    Near,
    Spots,
    boxes_of,
    crops_of,
    overlaps,
    places_of,
)
from licht.evaluation.judge_training import (
    JudgeBatch,
    JudgeModule,
    JudgeTask,
    Softening,
    Targets,
    assemble_judge,
    draw_places,
    export_judge,
    finder_losses,
    heat_map,
    is_softened,
    judge_scene,
    mirrored,
    near_losses,
    picture_losses,
    targets_of,
)
from licht.evaluation.seen import OBJECT_CATEGORIES, PICTURE_CATEGORIES, colors_sorted, truth
from licht.recipes.nano import nano_judge
from licht.training.checks import check
from licht.training.config import DataConfig, JudgeConfig, OptimConfig
from licht.training.ema import EMA
from licht.training.loop import Rank
from licht.training.muon import SharedMuon
from licht.training.optim import build_optimizers
from licht.training.state import save_state
from licht.world.render import render
from licht.world.sample import sample_scene
from licht.world.scene import Scene, Thing
from licht.world.vocabulary import is_hex

CELLS = 32


def certain(classes_N: Tensor, count: int) -> Tensor:
    """Logits of one category that leave no doubt."""
    return 20.0 * F.one_hot(classes_N.clamp(min=0), count).float()


class Sure(JudgeNetwork):
    """Knows what is true of the pictures that it is shown, and says so: whole boxes of things, and nothing else."""

    def __init__(self, targets: Targets) -> None:
        super().__init__()
        self.targets = targets

    def find(self, image_BCHW: Tensor) -> Glance:
        place = places_of(self.targets.boxes_BN4)
        heat, at_BN = heat_map(place, self.targets.there_BN)
        cells = torch.zeros(len(heat), 1 + BOX, CELLS, CELLS)
        cells[:, 0] = torch.logit(heat.clamp(1e-6, 1 - 1e-6))
        for row, number in self.targets.there_BN.nonzero().tolist():
            down, right = divmod(int(at_BN[row, number]), CELLS)
            x, y, w, h = place[row, number].tolist()
            answer = torch.tensor([x * CELLS - right - 0.5, y * CELLS - down - 0.5, w, h])
            cells[row, 1:, down, right] = answer
        return Glance(cells, torch.zeros(0), torch.zeros(0))

    def look_far(self, image_BCHW: Tensor, glance: Glance) -> tuple[Tensor, Tensor]:
        names = PICTURE_CATEGORIES.values()
        classes = self.targets.picture_BK.unbind(1)
        logits = [certain(one, len(each)) for one, each in zip(classes, names, strict=True)]
        return torch.zeros(len(classes[0]), 1), torch.cat(logits, 1)

    def look_near(self, image_BCHW: Tensor, glance: Glance, context_BC: Tensor, spots: Spots) -> Near:
        at_N, boxes_N4 = spots.at_N, spots.boxes_N4
        true = self.targets.boxes_BN4[at_N]
        shared = torch.cat([overlaps(box[None], some) for box, some in zip(boxes_N4, true, strict=True)])
        best, owner = shared.max(1)
        classes = self.targets.categories_BNK[at_N, owner].unbind(1)
        names = OBJECT_CATEGORIES.values()
        return Near(
            torch.where(best > 0.5, 20.0, -20.0),
            corrections(boxes_N4, self.targets.boxes_BN4[at_N, owner], 1.0),
            self.targets.rgb_BNK[at_N, owner],
            torch.cat([certain(one, len(each)) for one, each in zip(classes, names, strict=True)], 1),
        )


def losses(network: JudgeNetwork, targets: Targets) -> dict[str, float]:
    """The losses of a network's answers, at places drawn around the things that are right."""
    places = draw_places(targets, torch.Generator().manual_seed(0))
    image = torch.zeros(len(targets.there_BN), 3, 128, 128)
    glance = network.find(image)
    context, picture = network.look_far(image, glance)
    terms = {
        **finder_losses(glance, targets),
        **near_losses(network.look_near(image, glance, context, places.spots), places, targets),
        **picture_losses(picture, targets),
    }
    return {name: float(term) for name, term in terms.items()}


def test_answers_that_are_right_are_read_as_the_truth() -> None:
    scenes = [judge_scene(1, index) for index in range(24)]
    seen = Judge(Sure(targets_of(scenes))).look(torch.zeros(24, 128, 128, 3, dtype=torch.uint8))
    right = [truth(scene) for scene in scenes]
    assert recognised(seen, right)["all"] == 1.0
    for one, true, scene in zip(seen, right, scenes, strict=True):
        told = [colors_sorted(*each) for each in zip(true.objects, scene.subjects, strict=True)]
        assert sorted(each.hex for each in one.objects) == sorted(each.hex for each in told)


def test_the_colours_of_stripes_have_one_order_to_learn() -> None:
    first, second = (
        colors_sorted(truth(Scene(subjects=(thing,))).objects[0], thing)
        for thing in (
            Thing("cube", "blue", pattern="striped", second="#ff0000"),
            Thing("cube", "#ff0000", pattern="striped", second="blue"),
        )
    )
    assert first == second
    assert (first.attributes["color"], first.attributes["second"], first.hex) == ("red", "blue", "#ff0000")
    dotted = Thing("cube", "blue", pattern="dotted", second="red")
    one = truth(Scene(subjects=(dotted,))).objects[0]
    assert colors_sorted(one, dotted) == one


def test_losses_vanish_for_right_answers_and_not_for_others() -> None:
    targets = targets_of([judge_scene(1, index) for index in range(8)])
    right = losses(Sure(targets), targets)
    assert all(value < 0.3 for value in right.values()), right
    other = targets_of([judge_scene(1, index) for index in range(8, 16)])
    wrong = losses(Sure(targets), other)
    assert all(wrong[name] > 3 * right[name] for name in right)


def test_places_say_truly_what_is_in_them() -> None:
    targets = targets_of([judge_scene(1, index) for index in range(49)])
    places = draw_places(targets, torch.Generator().manual_seed(3))
    there = places.owner_P >= 0
    assert 0.5 < float(there.float().mean()) < 0.95
    spots = places.spots
    for at, box, owner in zip(spots.at_N.tolist(), spots.boxes_N4, places.owner_P.tolist(), strict=True):
        shared = overlaps(box[None], targets.boxes_BN4[at][targets.there_BN[at]])[0]
        assert float(shared.max()) >= 0.5 if owner >= 0 else float(shared.max()) < 0.35
    counts = torch.bincount(spots.at_N[there])
    assert int(counts.max()) <= 6  # three things, each of them perhaps once more by chance


def test_a_square_is_cut_out_where_its_box_is() -> None:
    image = torch.zeros(1, 3, 64, 128)
    image[:, :, 20:40, 60:100] = 1.0
    box = torch.tensor([[60 / 128, 20 / 64, 100 / 128, 40 / 64]])
    crops, place = crops_of(image, torch.tensor([0]), box, 1.0)
    assert crops.shape == (1, 3, NEAR_PX, NEAR_PX)
    assert place[0].tolist() == pytest.approx([80 / 128, 30 / 64, 40 / 128, 20 / 64])
    lit = crops[0, 0] > 0.5
    assert lit[13:35].all()  # as wide as the square, half as high
    assert not lit[:11].any()
    assert not lit[37:].any()


@pytest.mark.parametrize("aspect", [1.0, 0.5, 2.0])
def test_corrections_turn_boxes_into_the_right_ones(aspect: float) -> None:
    torch.manual_seed(0)
    middle = torch.rand(20, 2)
    right = boxes_of(torch.cat([middle, 0.1 + 0.3 * torch.rand(20, 2)], 1))
    off = boxes_of(torch.cat([middle + 0.05, 0.1 + 0.3 * torch.rand(20, 2)], 1))
    assert torch.allclose(refine(off, corrections(off, right, aspect), aspect), right, atol=1e-5)


def test_turned_pictures_have_turned_targets() -> None:
    targets = targets_of([judge_scene(1, index) for index in range(49)])
    turned = torch.ones(49, dtype=torch.bool)
    once = mirrored(targets, turned)
    light = list(PICTURE_CATEGORIES).index("light_side")
    names = PICTURE_CATEGORIES["light_side"]
    lefts = targets.picture_BK[:, light] == names.index("left")
    assert lefts.any()
    assert (once.picture_BK[lefts, light] == names.index("right")).all()
    assert (once.boxes_BN4[targets.there_BN] != targets.boxes_BN4[targets.there_BN]).any()
    for again in (mirrored(once, turned), mirrored(targets, ~turned)):
        for field in fields(targets):
            ours, theirs = getattr(again, field.name), getattr(targets, field.name)
            assert torch.allclose(ours.float(), theirs.float(), atol=1e-6), field.name


def test_a_third_of_the_pictures_is_softened(tmp_path: Path) -> None:
    def gray(pictures: Tensor) -> Tensor:
        return torch.full_like(pictures, 128)

    recipe = replace(nano_judge(), data=DataConfig(seed=3, pictures=18))
    task = assemble_judge(recipe, tmp_path, torch.device("cpu"), lambda *_: None, Softening(gray, "gray"))
    images = task.store.images(torch.arange(18))
    flat = [float(image.std()) == 0.0 for image in images]
    assert flat == [is_softened(index) for index in range(18)]
    assert sum(flat) == 6
    with pytest.raises(InvalidSettings, match="softened"):
        assemble_judge(recipe, tmp_path, torch.device("cpu"), lambda *_: None)


def test_ranks_share_a_batch(tmp_path: Path) -> None:
    recipe = replace(nano_judge(), data=DataConfig(seed=3, pictures=520), optim=OptimConfig(steps=1, batch=8))

    class Store:
        count, size = 520, (128, 128)

        def images(self, indices: Tensor) -> Tensor:
            return indices.float()[:, None, None, None].expand(-1, 3, 128, 128) / 600

    task = JudgeTask(recipe, Store(), torch.device("cpu"))  # type: ignore[arg-type] # no pictures are needed here
    whole = task.batch(5, Rank()).targets.picture_BK
    parts = [task.batch(5, Rank(index, 2)).targets.picture_BK for index in range(2)]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)


def test_the_judge_learns() -> None:
    torch.manual_seed(0)
    scenes = [judge_scene(2, index) for index in range(4)]
    image = render(scenes, 128, 128).permute(0, 3, 1, 2).float() / 127.5 - 1
    targets, module = targets_of(scenes), JudgeModule()
    batch = JudgeBatch(image, draw_places(targets, torch.Generator().manual_seed(0)), targets)
    optimizers = build_optimizers(
        module.named_parameters(), OptimConfig(steps=9, batch=8, adamw_lr=3e-3, muon_lr=3e-3, muon_kernels=True)
    )
    assert any(isinstance(optimizer, SharedMuon) for optimizer in optimizers)
    found = []
    for _ in range(8):
        loss = torch.stack(list(module(batch).values())).sum()
        found.append(float(loss.detach()))
        module.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    assert found[-1] < 0.8 * found[0]


def test_a_judge_starts_from_what_a_run_has_trained(tmp_path: Path) -> None:
    module = JudgeModule()
    small = replace(nano_judge(), data=DataConfig(seed=3, pictures=4))
    save_state(tmp_path / "run", 1, module, EMA(module, 0.9), [], small)
    begun = replace(small, seed=5, start_from=str(tmp_path / "run"))
    task = assemble_judge(begun, tmp_path / "data", torch.device("cpu"), lambda *_: None)
    theirs = module.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in task.judge.state_dict().items())
    assert task.judge.finds


def test_a_judge_starts_from_the_one_that_is_shipped_and_may_keep_its_finder(tmp_path: Path) -> None:
    recipe = replace(nano_judge(), data=DataConfig(seed=3, pictures=4), start_from="shipped")
    recipe = replace(recipe, judge=JudgeConfig(keep_finder=True))
    module = assemble_judge(recipe, tmp_path, torch.device("cpu"), lambda *_: None).judge
    shipped, ours = Judge.load().network.state_dict(), module.network.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in shipped.items() if "num_batches" not in name)
    learning = {name.partition(".")[0] for name, tensor in module.network.named_parameters() if tensor.requires_grad}
    assert "finder" not in learning
    assert {"near", "far", "thing"} <= learning
    with pytest.raises(InvalidSettings, match=r"judge\.keep_finder"):
        check(replace(recipe, start_from=None))


def test_some_plain_things_are_given_a_pattern() -> None:
    def patterned(share: float) -> list[str | None]:
        scenes = [judge_scene(1, index, share) for index in range(48)]
        things = [subject for scene in scenes for subject in scene.subjects if isinstance(subject, Thing)]
        return [thing.second for thing in things if thing.material != "metal" and not is_hex(thing.color)]

    few, many, every = (patterned(share) for share in (0.0, 0.4, 1.0))
    assert 0 < sum(map(bool, few)) < sum(map(bool, many)) < sum(map(bool, every)) == len(every)
    assert [after for before, after in zip(few, many, strict=True) if before] == [one for one in few if one]


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

    save_file({"thing.bias": JudgeNetwork().state_dict()["thing.bias"]}, tmp_path / "half")
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
