"""Distillation: of two passes into one (guidance), of many steps into a few (steps). The text tower stays as it is.

Guidance: the student, told the scale g, is to predict `u + g (c - u)` of its teacher (Meng et al., 2022, first stage).
Steps: the student's velocity over one of its own steps is to lead where its teacher's smaller steps lead from the same
latents. That end point is a function of the start, so squared error has no blur to settle on; starts are noisy data
and, to see its own mistakes, latents that the student came to by itself.

Shapes: B batch, L latent tokens, T text tokens, C channels, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from licht.core.errors import InvalidSettings
from licht.model.transformer import ReferenceCache
from licht.sampling.schedule import empirical_mu, shift_time
from licht.training.config import DistilConfig, Recipe, Source, Task
from licht.training.draws import Purpose, generator_of
from licht.training.flow import FlowBatch, FlowNetworks, FlowTask, Sampler
from licht.training.fuse import fuse_blocks
from licht.training.loop import Rank
from licht.training.objectives import interpolate, velocity_loss
from licht.training.store import StreamStore
from licht.training.tokenizer import CaptionEncoder


@dataclass(frozen=True, slots=True)
class DistilBatch:
    """Rows of a flow batch and what the student is told besides."""

    rows: FlowBatch
    empty_1T: Tensor
    empty_attended_1T: Tensor
    guidance_B: Tensor
    start: int
    """Which of its steps a step student takes, from 0."""
    on_policy: bool
    reference_guidance: float = 1.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What a teacher is shown of a batch, the same at all times: texts and references.

    Encoded captions (B, T, D) and, for classifier-free guidance, the empty caption as many times; keys and values of the
    references, if there are any, and how much more than by themselves they are followed.
    """

    conditional_BTD: Tensor
    unconditional_BTD: Tensor
    cache: ReferenceCache | None
    reference_guidance: float = 1.0


class Teacher:
    """Frozen networks. No module, so that neither optimiser nor checkpoint takes them for the student's."""

    def __init__(self, networks: FlowNetworks) -> None:
        """Guide by two passes, or by the embedding where the networks have one."""
        self.networks = networks.eval().requires_grad_(False)
        self.embeds_guidance = networks.transformer.guidance_in is not None

    def refuse_unable(self, distil: DistilConfig) -> None:
        """Raises `InvalidSettings` if references are to be guided and the networks embed their guidance."""
        if self.embeds_guidance and distil.reference_guidance != 1.0:
            raise InvalidSettings(
                "distil.reference_guidance needs a teacher without embedded guidance: one of nano_base's",
                field="distil.reference_guidance",
            )

    @torch.no_grad()
    def shown(self, batch: DistilBatch) -> Shown:
        """Encode captions and references once; the student reads the same tower's states."""
        rows, tower = batch.rows, self.networks.tower
        states = tower(rows.ids_BT, rows.attended_BT)
        empty = tower(batch.empty_1T, batch.empty_attended_1T).expand_as(states)
        cache = self.networks.cached(rows, batch.guidance_B if self.embeds_guidance else None)
        return Shown(states, empty, cache, batch.reference_guidance)

    @torch.no_grad()
    def velocity(self, rows: FlowBatch, shown: Shown, x_BLC: Tensor, t_B: Tensor, guidance_B: Tensor) -> Tensor:
        """Guided velocity, float32.

        `v(0, 0) + s (v(0, r) - v(0, 0)) + g (v(c, r) - v(0, r))` of the caption c and the references r, with s the scale
        of references and g that of captions (Brooks et al., 2023, https://arxiv.org/abs/2211.09800). Without references,
        or with an s of 1, that is classifier-free guidance.
        """
        if self.embeds_guidance:
            return self._pass(rows, shown.conditional_BTD, x_BLC, t_B, shown.cache, guidance_B)
        conditional = self._pass(rows, shown.conditional_BTD, x_BLC, t_B, shown.cache)
        unconditional = self._pass(rows, shown.unconditional_BTD, x_BLC, t_B, shown.cache)
        guided = unconditional + guidance_B.view(-1, 1, 1) * (conditional - unconditional)
        if shown.cache is None or shown.reference_guidance == 1.0:
            return guided
        alone = replace(rows, references_BRC=None, reference_grids=())
        nothing = self._pass(alone, shown.unconditional_BTD, x_BLC, t_B, None)
        return guided + (shown.reference_guidance - 1.0) * (unconditional - nothing)

    def _pass(
        self,
        rows: FlowBatch,
        text_BTD: Tensor,
        x_BLC: Tensor,
        t_B: Tensor,
        cache: ReferenceCache | None,
        guidance_B: Tensor | None = None,
    ) -> Tensor:
        return self.networks.velocity_after(rows, text_BTD, x_BLC, t_B, guidance_B, cache=cache).float()


class Student(nn.Module):
    """The networks that learn; `forward` is the loss."""

    def __init__(self, recipe: Recipe, teacher: Teacher) -> None:
        """Build the student; it is filled by whoever assembles the task."""
        super().__init__()
        networks = FlowNetworks(recipe.networks, guidance_embed=recipe.task is Task.GUIDANCE)
        self.transformer, self.tower = networks.transformer, networks.tower
        self.tower.requires_grad_(False)
        self.recipe = recipe
        self._held = (teacher, networks)

    @property
    def networks(self) -> FlowNetworks:
        """The student's own networks; they share its parameters."""
        return self._held[1]

    def forward(self, batch: DistilBatch) -> dict[str, Tensor]:
        """Mean squared distance to the teacher, as a velocity."""
        if self.recipe.task is Task.GUIDANCE:
            return {"guidance": self._guidance_loss(batch)}
        return {"steps": self._steps_loss(batch)}

    def _guidance_loss(self, batch: DistilBatch) -> Tensor:
        rows, teacher = batch.rows, self._held[0]
        shown = teacher.shown(batch)
        x_BLC, _ = interpolate(rows.x0_BLC, rows.noise_BLC, rows.t_B)
        target = teacher.velocity(rows, shown, x_BLC, rows.t_B, batch.guidance_B)
        found = self.networks.velocity_after(rows, shown.conditional_BTD, x_BLC, rows.t_B, batch.guidance_B)
        return velocity_loss(found, target).mean()

    def _steps_loss(self, batch: DistilBatch) -> Tensor:
        rows, teacher = batch.rows, self._held[0]
        shown = teacher.shown(batch)
        times = step_times(rows.x0_BLC.shape[1], self.recipe.distil.steps, self.recipe.distil.substeps)
        first, last = times[batch.start][0], times[batch.start][-1]
        # one pass over the references serves the way to the start and the step itself; its gradient is the step's
        cache = self.networks.cached(rows)
        x_BLC = self._start(batch, shown.conditional_BTD, cache, times)
        reached = x_BLC
        for here, there in pairwise(times[batch.start]):
            t_B = torch.full_like(rows.t_B, here)
            reached = reached + (there - here) * teacher.velocity(rows, shown, reached, t_B, batch.guidance_B)
        target = (reached - x_BLC) / (last - first)
        t_B = torch.full_like(rows.t_B, first)
        found = self.networks.velocity_after(rows, shown.conditional_BTD, x_BLC, t_B, cache=cache)
        return velocity_loss(found, target).mean()

    @torch.no_grad()
    def _start(
        self, batch: DistilBatch, text_BTD: Tensor, cache: ReferenceCache | None, times: Sequence[Sequence[float]]
    ) -> Tensor:
        """Where the step begins: at noise, at noisy data, or where the student comes from noise by itself."""
        rows = batch.rows
        if not batch.on_policy:
            return interpolate(rows.x0_BLC, rows.noise_BLC, torch.full_like(rows.t_B, times[batch.start][0]))[0]
        x_BLC = rows.noise_BLC
        for passed in times[: batch.start]:
            t_B = torch.full_like(rows.t_B, passed[0])
            velocity = self.networks.velocity_after(rows, text_BTD, x_BLC, t_B, cache=cache).float()
            x_BLC = x_BLC + (passed[-1] - passed[0]) * velocity
        return x_BLC


def step_times(tokens: int, steps: int, substeps: int) -> list[list[float]]:
    """For each of a student's steps the times of its teacher: from the step's beginning to its end."""
    mu = empirical_mu(tokens, steps)
    shifted = [shift_time(1.0 - number / (steps * substeps), mu) for number in range(steps * substeps + 1)]
    return [shifted[at * substeps : (at + 1) * substeps + 1] for at in range(steps)]


class DistilTask(FlowTask):
    """A flow task whose batches go to a student instead."""

    def __init__(
        self,
        recipe: Recipe,
        stores: Sequence[StreamStore],
        encoder: CaptionEncoder,
        device: torch.device,
        sampler: Sampler,
        teacher: FlowNetworks,
    ) -> None:
        """The student is built from the recipe's seed; `teacher` is frozen."""
        super().__init__(recipe, stores, encoder, device, sampler)
        torch.manual_seed(recipe.seed)
        if recipe.optim.compile:
            fuse_blocks(teacher)
        guiding = Teacher(teacher.to(device))
        guiding.refuse_unable(recipe.distil)
        student = Student(recipe, guiding).to(device)
        self.networks = student.networks
        self.module = student

    def batch(self, step: int, rank: Rank) -> DistilBatch:
        """The rows of a flow batch, with their captions, and the scales and starts of this step."""
        distil = self.recipe.distil
        pick = self.pick(step)
        rows = self.batch_of(pick, rank)
        generator = generator_of(self.recipe, step, Purpose.DISTILLING)
        count = self.recipe.optim.batch
        spread = distil.most_guidance - distil.least_guidance
        drawn = distil.least_guidance + spread * torch.rand(count, generator=generator)
        start = int(torch.randint(distil.steps, (1,), generator=generator))
        on_policy = bool(torch.rand(1, generator=generator) < distil.on_policy)
        empty = self.empty[:, : rows.ids_BT.shape[1]].to(self.device)
        guidance = drawn if self.recipe.task is Task.GUIDANCE else torch.full((count,), distil.guidance)
        return DistilBatch(
            rows=rows,
            empty_1T=empty,
            empty_attended_1T=self.encoder.attended(empty),
            guidance_B=guidance[rank.rows].to(self.device),
            start=start,
            on_policy=on_policy or start == 0,
            # an edit is to leave its reference behind: followed more, it is done less often
            reference_guidance=distil.reference_guidance if pick.store.stream.source is Source.TASK else 1.0,
        )
