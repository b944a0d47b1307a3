"""Training with Self-Flow: a flow task whose batches have a second time."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from licht.training.config import Recipe
from licht.training.draws import Purpose, generator_of
from licht.training.flow import FlowTask, Sampler
from licht.training.loop import Rank
from licht.training.objectives import draw_times
from licht.training.self_flow import MASKED, SelfFlow, SelfFlowBatch
from licht.training.store import StreamStore
from licht.training.tokenizer import CaptionEncoder


class SelfFlowTask(FlowTask):
    """Batches of the joint objective with two times each."""

    def __init__(
        self,
        recipe: Recipe,
        stores: Sequence[StreamStore],
        encoder: CaptionEncoder,
        device: torch.device,
        sampler: Sampler,
    ) -> None:
        """Build and initialise the networks from the recipe's seed."""
        super().__init__(recipe, stores, encoder, device, sampler)
        self.self_flow = SelfFlow(self.networks, recipe.flow.self_flow).to(device)
        self.module = self.self_flow

    def follow(self, average: Mapping[str, Tensor]) -> None:
        """Align with the running average."""
        self.self_flow.follow(average)

    def batch(self, step: int, rank: Rank) -> SelfFlowBatch:
        """The rows of a flow batch with their second times and masks."""
        rows = self.flow_batch(step, rank)
        generator = generator_of(self.recipe, step, Purpose.BESIDE)
        count, flow = self.recipe.optim.batch, self.recipe.flow
        second = draw_times(count, flow.shape, flow.shift, generator)
        masked = torch.rand(count, rows.x0_BLC.shape[1], generator=generator) < MASKED
        mine = rank.rows
        return SelfFlowBatch(rows, second[mine].to(self.device), masked[mine].to(self.device))
