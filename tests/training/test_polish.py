"""A critic that learns what latents show, and a few-step model that learns by its eyes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from licht.core.errors import InvalidSettings
from licht.recipes.nano import nano_critic, nano_polish
from licht.sampling.schedule import sigmas
from licht.sampling.solvers import euler
from licht.training.assemble import assemble
from licht.training.config import DataConfig, PolishConfig, Recipe, Source, Stream
from licht.training.critic import NOISE, Critic, CriticTask, unlike
from licht.training.flow import FlowNetworks
from licht.training.grounded import POSITION_LOGITS, TOKEN_LOGITS, told_loss
from licht.training.loop import Rank, train
from licht.training.objectives import interpolate
from licht.training.optim import build_optimizers, set_rates
from licht.training.polish import Polish, PolishBatch, PolishTask
from licht.training.semantic import COLORS, KINDS, MATERIALS
from licht.training.store import StreamStore
from licht.training.trained import fill, fill_critic, open_networks
from licht.training.truth import LETTERS, TruthStore
from tests.training.runs import TINY, alive, autoencoder_run, flow_run
from tests.training.test_distil import ENCODER, nothing, random_rows

EDITS = Stream("edits", Source.EDIT, ("recolor",), 16, 1.0, size_px=(64, 64), references=1, reference_px=64, captions=1)
PICTURES = Stream("pictures", Source.PICTURE, ("one",), 16, 1.0, size_px=(64, 64), captions=1)
LAST = 3


def small(recipe: Recipe, stream: Stream = EDITS, steps: int = 60) -> Recipe:
    optim = replace(
        recipe.optim, steps=steps, batch=8, warmup_steps=2, autocast=False, adamw_lr=3e-3, muon_lr=3e-3, critic_rate=1.0
    )
    return replace(recipe, networks=TINY, optim=optim, data=DataConfig(streams=(stream,)))


def stores(folder: Path, stream: Stream) -> tuple[list[StreamStore], dict[str, TruthStore]]:
    """Random latents; what they show follows from them, so that it can be learned."""
    rows, truth = StreamStore(folder, stream, 32, TINY.text_length), TruthStore(folder / "truth.bin", stream)
    rows.fill(random_rows, 8, lambda *_: None)
    known = rows.rows(torch.arange(stream.rows)).x0_BLC
    shown = torch.zeros(*known.shape[:2], 35, dtype=torch.uint8)
    shown[..., 0:16:4] = (known[..., :1] > 0).byte()
    truth._write(slice(0, stream.rows), shown.numpy())
    return [rows], {stream.name: truth}


def polish_task(folder: Path, recipe: Recipe | None = None, stream: Stream = EDITS) -> PolishTask:
    rows, truths = stores(folder, stream)
    task = PolishTask(small(recipe or nano_polish(), stream), rows, ENCODER, torch.device("cpu"), nothing, truths)
    start = FlowNetworks(TINY)
    alive(start, 5)
    fill(task.networks, start)
    return task


def batch_at(task: PolishTask, start: int) -> PolishBatch:
    return replace(task.batch(0, Rank()), start=start, trust=1.0)


def test_a_critic_says_of_each_position_and_token_what_is_asked_in_the_truths_order() -> None:
    critic = Critic(32)
    alive(critic)
    latents = torch.randn(2, 6 * 4, 32)
    sight = critic(latents, (6, 4))
    assert sight.told_BLK.shape == (2, 24, POSITION_LOGITS + TOKEN_LOGITS)
    assert sight.true_BHW.shape == (2, 12, 8)
    # the logits of a token's four positions are those of the map, row by row
    seen: list[Tensor] = []
    critic.of_position.register_forward_hook(lambda module, given, made: seen.append(made))
    told = critic(latents, (6, 4)).told_BLK[1, 4 * 2 + 3, :POSITION_LOGITS].view(4, -1)
    each = len(KINDS) + len(COLORS) + len(MATERIALS) + len(LETTERS)
    assert told.shape == (4, each)
    for number, (row, column) in enumerate(((4, 6), (4, 7), (5, 6), (5, 7))):
        torch.testing.assert_close(told[number], seen[0][1, :, row, column])


def test_a_critic_learns_what_latents_show_and_sees_noise_on_them(tmp_path: Path) -> None:
    rows, truths = stores(tmp_path, PICTURES)
    recipe = small(replace(nano_critic(), data=DataConfig(streams=(PICTURES,))), PICTURES, steps=40)
    task = CriticTask(recipe, rows, ENCODER, torch.device("cpu"), nothing, truths)
    batch = task.batch(3, Rank())
    strength = batch.noise_BLC.std(dim=(1, 2))
    assert 0 < float(strength.min()) < float(strength.max()) < 1.2 * NOISE
    before = float(task.module(batch)["told"].detach())
    train(task, recipe, tmp_path / "run", 5.0, lambda report: None)
    assert float(task.module(batch)["told"].detach()) < 0.5 * before
    assert task.sample(tmp_path / "sheet.png", 1) == {}


def test_each_side_learns_from_its_own_terms_alone(tmp_path: Path) -> None:
    task = polish_task(tmp_path)
    alive(task.critic)

    def learners(*names: str) -> tuple[bool, bool]:
        task.module.zero_grad(set_to_none=True)
        terms = task.module(batch_at(task, LAST))
        assert set(terms) == {"fooled", "shown", "unlike", "error", "told", "told_apart", "steady"}
        torch.stack([terms[name] for name in names]).sum().backward()
        return tuple(
            any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())
            for part in (task.networks.transformer, task.critic)
        )  # type: ignore[return-value]

    assert learners("fooled") == (True, False)
    assert learners("shown") == (True, False)
    assert learners("unlike") == (True, False)
    assert learners("error") == (True, False)
    assert learners("told") == (False, True)
    assert learners("told_apart") == (False, True)
    assert learners("steady") == (False, True)
    assert all(parameter.grad is None for parameter in task.networks.tower.parameters())


def test_only_what_is_known_of_a_start_is_asked(tmp_path: Path) -> None:
    task = polish_task(tmp_path)
    terms = [task.module(batch_at(task, start)) for start in range(4)]
    assert [float(each["shown"].detach()) > 0 for each in terms] == [False, True, True, True]
    assert [float(each["error"].detach()) > 0 for each in terms] == [False, False, False, True]
    assert [float(each["unlike"].detach()) > 0 for each in terms] == [False, False, True, True]
    starts = [task.batch(step, Rank()).start for step in range(80)]
    assert 0 < starts.count(0) < starts.count(LAST)
    assert {task.batch(step, Rank()).trust for step in (0, 50, 100, 900)} == {0.0, 0.5, 1.0}


def test_equal_sights_are_not_unlike() -> None:
    critic = Critic(32)
    alive(critic)
    one, other = (critic(torch.randn(2, 16, 32), (4, 4)) for _ in range(2))
    assert float(unlike(one, one).detach()) == 0
    assert float(unlike(one, other).detach()) > 0.1


def test_a_critic_has_rates_of_its_own(tmp_path: Path) -> None:
    task = polish_task(tmp_path)
    optim = replace(task.recipe.optim, critic_rate=5.0, warmup_steps=0)
    optimizers = build_optimizers(task.module.named_parameters(), optim)
    set_rates(optimizers, 0, optim)
    rates = {id(p): group["lr"] for each in optimizers for group in each.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in task.critic.parameters()} == {5 * optim.adamw_lr}
    assert {rates[id(p)] for p in task.networks.transformer.parameters()} == {optim.adamw_lr, optim.muon_lr}


@pytest.mark.parametrize("start", [0, 2])
def test_what_is_made_is_what_sampling_makes(tmp_path: Path, start: int) -> None:
    task = polish_task(tmp_path)
    module, batch = task.module, batch_at(task, start)
    assert isinstance(module, Polish)
    rows, schedule = batch.rows, sigmas(16, 4)[start:]
    begin = rows.noise_BLC
    if start:
        begin, _ = interpolate(rows.x0_BLC, rows.noise_BLC, torch.full((8,), schedule[0]))
    with torch.no_grad():
        *_, right = euler(lambda x, t: task.networks.velocity(rows, x, torch.full((8,), t)).float(), begin, schedule)
        torch.testing.assert_close(module._made(batch), right, rtol=1e-4, atol=1e-4)


def test_gradients_reach_back_over_the_tail_alone(tmp_path: Path) -> None:
    """The first weights after noise see other gradients when more steps learn; with one it is that of the last step."""
    found = []
    for tail in (1, 4):
        recipe = replace(nano_polish(), polish=PolishConfig(tail=tail))
        task = polish_task(tmp_path / str(tail), recipe)
        batch = batch_at(task, 0)
        assert isinstance(task.module, Polish)
        task.module._made(batch).square().mean().backward()
        found.append(task.networks.transformer.img_in.weight.grad)
    one, all_of_them = found
    assert one is not None
    assert all_of_them is not None
    assert bool(one.any())
    assert not torch.allclose(one, all_of_them, rtol=0.1)


def test_ranks_share_a_batch(tmp_path: Path) -> None:
    task = polish_task(tmp_path)
    whole, half = task.batch(7, Rank()), task.batch(7, Rank(1, 2))
    assert torch.equal(whole.veil_BLC[1::2], half.veil_BLC)
    assert torch.equal(whole.nudge_BLC[1::2], half.nudge_BLC)
    assert torch.equal(whole.truth_BLK[1::2], half.truth_BLK)
    assert whole.start == half.start


def test_polishing_brings_what_is_made_nearer_to_what_is_true(tmp_path: Path) -> None:
    recipe = replace(nano_polish(), polish=PolishConfig(adversarial=0.1))
    task = polish_task(tmp_path, recipe)
    before = float(task.module(batch_at(task, LAST))["error"].detach())
    tower = [parameter.clone() for parameter in task.networks.tower.parameters()]
    train(task, task.recipe, tmp_path / "run", 5.0, lambda report: None)
    assert float(task.module(batch_at(task, LAST))["error"].detach()) < 0.8 * before
    assert all(torch.equal(a, b) for a, b in zip(tower, task.networks.tower.parameters(), strict=True))
    fresh = Critic(32)
    fill_critic(fresh, tmp_path / "run")
    assert any(not torch.equal(a, b) for a, b in zip(fresh.parameters(), Critic(32).parameters(), strict=True))
    with pytest.raises(InvalidSettings, match="no critic of these latents"):
        fill_critic(Critic(64), tmp_path / "run")


def test_recipe_to_runs(tmp_path: Path) -> None:
    """From rendered rows: a critic's run, then one that is polished by its eyes."""
    autoencoder_run(tmp_path / "vae")
    flow_run(tmp_path / "steps", tmp_path / "vae")
    vae, steps = str(tmp_path / "vae"), str(tmp_path / "steps")
    known: dict[str, Path] = {}
    critic = replace(small(nano_critic(), PICTURES, steps=2), autoencoder_from=vae, start_from=steps)
    train(
        assemble(
            critic, tmp_path / "critic", tmp_path / "data", torch.device("cpu"), known, lambda *_: None, lambda *_: None
        ),
        critic,
        tmp_path / "critic",
        5.0,
        lambda report: None,
    )
    polish = replace(small(nano_polish(), PICTURES, steps=2), autoencoder_from=vae, start_from=steps)
    with pytest.raises(InvalidSettings, match=r"needs polish\.critic_from"):
        assemble(
            replace(polish, polish=PolishConfig()),
            tmp_path / "polish",
            tmp_path / "data",
            torch.device("cpu"),
            known,
            lambda *_: None,
            lambda *_: None,
        )
    polish = replace(polish, polish=PolishConfig(critic_from=str(tmp_path / "critic")))
    task = assemble(
        polish, tmp_path / "polish", tmp_path / "data", torch.device("cpu"), known, lambda *_: None, lambda *_: None
    )
    assert isinstance(task, PolishTask)
    begun = open_networks(tmp_path / "steps", TINY).state_dict()
    assert all(torch.equal(value, begun[name]) for name, value in task.networks.state_dict().items())
    train(task, polish, tmp_path / "polish", 5.0, lambda report: None)
    made = open_networks(tmp_path / "polish", TINY).transformer.state_dict()
    assert any(not torch.equal(value, begun[f"transformer.{name}"]) for name, value in made.items())
    assert told_loss(torch.zeros(1, 1, POSITION_LOGITS + TOKEN_LOGITS), torch.full((1, 1, 35), 255).byte()) == 0


@pytest.mark.parametrize("recipe", [nano_critic(), nano_polish()], ids=lambda recipe: recipe.name)
def test_pictures_of_ones_own_show_nothing_that_is_known(recipe: Recipe, tmp_path: Path) -> None:
    known: dict[str, Path] = {}
    own = Stream("own", Source.FOLDER, (), 0, 1.0, folder=str(tmp_path))
    with pytest.raises(InvalidSettings, match="nothing is known of what stands where in own; leave that stream out"):
        assemble(small(recipe, own), tmp_path, tmp_path, torch.device("cpu"), known, lambda *_: None, lambda *_: None)


def test_a_critic_that_is_not_there_is_missed_before_anything_is_prepared(tmp_path: Path) -> None:
    known: dict[str, Path] = {}
    missing = replace(small(nano_polish()), start_from="nano", polish=PolishConfig(critic_from=str(tmp_path / "gone")))
    for recipe, told in (
        (missing, "gone"),
        (replace(missing, polish=PolishConfig()), r"needs polish\.critic_from"),
        (replace(missing, start_from=None), "needs start_from"),
    ):
        with pytest.raises(InvalidSettings, match=told):
            assemble(
                recipe,
                tmp_path / "run",
                tmp_path / "data",
                torch.device("cpu"),
                known,
                lambda *_: None,
                lambda *_: None,
            )
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "data").exists()
