"""What a base has learned since is added to what was distilled from it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from licht.core.errors import InvalidSettings
from licht.recipes.nano import nano_base, nano_dev, nano_judge, nano_klein
from licht.training.assemble import assemble
from licht.training.carry import carry, open_start
from licht.training.checks import check
from licht.training.config import CarryConfig, DataConfig, Recipe, Source, Stream, Task
from licht.training.distil import DistilTask
from licht.training.export import Release, export_run
from licht.training.flow import FlowNetworks
from licht.training.trained import open_networks
from tests.training.runs import TINY, alive, autoencoder_run, flow_run

PICTURES = Stream("pictures", Source.PICTURE, ("one",), 16, 1.0, size_px=(64, 64), captions=1)
BOTH = CarryConfig(learned_by="later", since="earlier")


def networks(seed: int, guidance_embed: bool = False) -> FlowNetworks:
    made = FlowNetworks(TINY, guidance_embed=guidance_embed)
    alive(made, seed)
    return made


def small(recipe: Recipe, folder: Path) -> Recipe:
    optim = replace(recipe.optim, steps=2, batch=4, warmup_steps=1, autocast=False)
    recipe = replace(recipe, networks=TINY, optim=optim, data=DataConfig(streams=(PICTURES,)))
    return replace(recipe, autoencoder_from=str(folder / "vae"), start_from=str(folder / "distilled"))


def assembled(recipe: Recipe, folder: Path) -> DistilTask:
    known: dict[str, Path] = {}
    task = assemble(
        recipe, folder / "run", folder / "data", torch.device("cpu"), known, lambda *_: None, lambda *_: None
    )
    assert isinstance(task, DistilTask)
    return task


@pytest.mark.parametrize("guided", [False, True])
def test_the_difference_is_added_and_nothing_else_changes(guided: bool) -> None:
    start, later, earlier = networks(1, guided), networks(2), networks(3)
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    carry(start, later, earlier)
    embedding = {name for name in before if name.startswith("transformer.guidance_in.")}
    assert bool(embedding) is guided
    for name, tensor in start.state_dict().items():
        if name in embedding:
            assert torch.equal(tensor, before[name]), name
        else:
            assert torch.equal(tensor, before[name] + (later.state_dict()[name] - earlier.state_dict()[name])), name
    assert any(not torch.equal(tensor, before[name]) for name, tensor in start.state_dict().items())


def test_a_distillation_begins_where_it_is_carried_to(tmp_path: Path) -> None:
    autoencoder_run(tmp_path / "vae")
    for seed, (name, task) in enumerate({"earlier": Task.FLOW, "later": Task.FLOW, "distilled": Task.STEPS}.items()):
        flow_run(tmp_path / name, tmp_path / "vae", task, seed=10 * seed)
    earlier, later = (open_networks(tmp_path / name, TINY) for name in ("earlier", "later"))
    ends = CarryConfig(learned_by=str(tmp_path / "later"), since=str(tmp_path / "earlier"))
    recipe = replace(small(nano_klein(), tmp_path), carry=ends, teacher_from=str(tmp_path / "later"))
    expected = open_networks(tmp_path / "distilled", TINY)
    carry(expected, later, earlier)
    plain = open_networks(tmp_path / "distilled", TINY).state_dict()
    found = assembled(recipe, tmp_path).networks.state_dict()
    for name, value in (*expected.transformer.state_dict().items(),):
        assert torch.equal(value, found[f"transformer.{name}"]), name
    assert any(not torch.equal(value, found[name]) for name, value in plain.items() if name.startswith("transformer."))
    # what is distilled reads what the teacher's tower says, so that is the tower to draw with
    for name, value in later.tower.state_dict().items():
        assert torch.equal(value, found[f"tower.{name}"]), name
    assert any(not torch.equal(value, found[f"tower.{name}"]) for name, value in expected.tower.state_dict().items())


def test_the_card_tells_what_was_carried_over(tmp_path: Path) -> None:
    autoencoder_run(tmp_path / "vae")
    base = str(tmp_path / "base")
    flow_run(tmp_path / "base", tmp_path / "vae")
    flow_run(tmp_path / "distilled", tmp_path / "vae", Task.STEPS, start_from=base)
    flow_run(tmp_path / "later", tmp_path / "vae", start_from=base)
    ends = CarryConfig(learned_by=str(tmp_path / "later"), since=base)
    start, later = str(tmp_path / "distilled"), str(tmp_path / "later")
    flow_run(tmp_path / "again", tmp_path / "vae", Task.STEPS, start_from=start, teacher_from=later, carry=ends)
    export_run(tmp_path / "again", tmp_path / "out", {}, Release())
    told = "`nano_smoke`, 7 of 400 steps of 16 rows; 10 minutes more; started from the same run"
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert f"| carried over | {told} |" in card
    # it is kept for what starts from the exported model
    flow_run(tmp_path / "next", tmp_path / "vae", start_from=str(tmp_path / "out"))
    export_run(tmp_path / "next", tmp_path / "then", {}, Release())
    assert f"| carried over | {told} |" in (tmp_path / "then" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        (replace(nano_klein(), teacher_from="base", carry=CarryConfig(since="base")), "carry.learned_by"),
        (replace(nano_klein(), teacher_from="base", carry=CarryConfig(learned_by="run")), "carry.since"),
        (replace(nano_klein(), carry=BOTH), "teacher_from"),
        (replace(nano_dev(), carry=BOTH), "teacher_from"),
        (replace(nano_base(), carry=BOTH, start_from=None), "start_from"),
        (replace(nano_judge(), carry=BOTH), "carry.learned_by"),
    ],
)
def test_what_cannot_be_carried_over_is_refused_by_its_field(recipe: Recipe, field: str) -> None:
    with pytest.raises(InvalidSettings) as told:
        check(recipe)
    assert told.value.field == field


def test_ends_that_are_not_there_are_missed_before_anything_is_prepared(tmp_path: Path) -> None:
    ends = CarryConfig(learned_by=str(tmp_path / "gone"), since="earlier")
    recipe = replace(small(nano_klein(), tmp_path), carry=ends, teacher_from="base")
    with pytest.raises(InvalidSettings, match="gone"):
        assembled(recipe, tmp_path)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "data").exists()


def test_a_start_must_be_named() -> None:
    with pytest.raises(InvalidSettings, match="needs start_from"):
        open_start(replace(nano_klein(), start_from=None), {})
