"""Training the flow transformer and its text tower together, on text-to-image, edits and references in one stream.

Shapes: B batch, L latent tokens, T text tokens, R reference tokens, C channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from licht.model.positions import image_ids, reference_ids, text_ids
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer, ReferenceCache, Watch
from licht.training.build import initialise_tower, initialise_transformer, text_config, transformer_config
from licht.training.config import Networks, Recipe
from licht.training.draws import generator_of, turn
from licht.training.loop import Rank
from licht.training.objectives import draw_times, interpolate, velocity_loss
from licht.training.store import StreamStore
from licht.training.tokenizer import CaptionEncoder

Grid = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FlowBatch:
    """Rows that share one size of picture and one list of reference sizes."""

    x0_BLC: Tensor
    noise_BLC: Tensor
    t_B: Tensor
    grid: Grid
    ids_BT: Tensor
    attended_BT: Tensor
    references_BRC: Tensor | None
    reference_grids: tuple[Grid, ...]


class FlowNetworks(nn.Module):
    """Tower and transformer as one module, so that one optimiser, one average and one checkpoint hold both."""

    def __init__(self, networks: Networks, guidance_embed: bool = False) -> None:
        """Build and initialise both from torch's current seed."""
        super().__init__()
        self.transformer = Flux2Transformer(transformer_config(networks, guidance_embed))
        self.tower = TextTower(text_config(networks))
        initialise_transformer(self.transformer)
        initialise_tower(self.tower)

    def forward(self, batch: FlowBatch) -> dict[str, Tensor]:
        """Mean squared error of the velocity over the rows of `batch`."""
        x_BLC, target_BLC = interpolate(batch.x0_BLC, batch.noise_BLC, batch.t_B)
        return {"velocity": velocity_loss(self.velocity(batch, x_BLC, batch.t_B), target_BLC).mean()}

    def velocity(self, batch: FlowBatch, x_BLC: Tensor, t_B: Tensor, guidance_B: Tensor | None = None) -> Tensor:
        """Velocity of noisy tokens under the batch's text and references.

        References go through a pass of their own and are seen as keys and values only, as when they are cached in
        inference; the gradient flows through them.
        """
        return self.velocity_after(batch, self.tower(batch.ids_BT, batch.attended_BT), x_BLC, t_B, guidance_B)

    def velocity_after(
        self,
        batch: FlowBatch,
        text: Tensor,
        x_BLC: Tensor,
        t_B: Tensor,
        guidance_B: Tensor | None = None,
        watch: Watch = None,
        cache: ReferenceCache | None = None,
    ) -> Tensor:
        """The same with the text already encoded, (B, T, D), and perhaps the references (`cached`)."""
        device = x_BLC.device
        if cache is None:
            cache = self.cached(batch, guidance_B)
        velocity: Tensor = self.transformer(
            x_BLC,
            image_ids(batch.grid).to(device),
            text,
            text_ids(text.shape[1]).to(device),
            t_B,
            guidance_B,
            cache=cache,
            watch=watch,
        )
        return velocity

    def cached(self, batch: FlowBatch, guidance_B: Tensor | None = None) -> ReferenceCache | None:
        """Keys and values of the batch's references, which serve at every time; None where it has none."""
        if batch.references_BRC is None:
            return None
        positions = reference_ids(batch.reference_grids).to(batch.references_BRC.device)
        return self.transformer.reference_cache(batch.references_BRC, positions, guidance_B)


Sampler = Callable[[FlowNetworks, Path, int], dict[str, float]]
"""(networks, path of a sheet, step) -> figures to log. Passed in, because judging is not the trainer's business."""


class CaptionDraw:
    """Draws captions with equal chances; those of one batch are about equally long.

    Padding costs as much as words do, and most captions fill a third of the length that a few need. Batches are cut to
    what they fill, but not always: in use, prompts come padded to the full length as well.
    """

    def __init__(self, lengths: Tensor, step: int, full: int) -> None:
        """`lengths` (N,) of the captions, in batches rounded up to a multiple of `step`; `full` is the padded length."""
        cuts = ((lengths + step - 1) // step * step).clamp(min=min(step, full), max=full)
        self._cuts = cuts.unique().tolist()
        self._groups = [torch.nonzero(cuts == cut)[:, 0] for cut in self._cuts]
        self._shares = torch.tensor([len(group) for group in self._groups]) / len(lengths)
        self._full = full

    def draw(self, count: int, full_length: float, generator: torch.Generator) -> tuple[Tensor, int]:
        """(numbers of `count` captions, length to cut them to); they stay whole with chance `full_length`."""
        chosen = int(torch.multinomial(self._shares, 1, generator=generator))
        whole = float(torch.rand((), generator=generator)) < full_length
        group = self._groups[chosen]
        picked = group[torch.randint(len(group), (count,), generator=generator)]
        return picked, self._full if whole else self._cuts[chosen]


@dataclass(frozen=True, slots=True)
class Pick:
    """What a step trains on: numbers of a store's captions, the length to cut them to, and a generator for the rest."""

    store: StreamStore
    captions: Tensor
    length: int
    generator: torch.Generator


class FlowTask:
    """Batches of the joint objective: each step takes rows of one stream, the streams in turn by their weights."""

    def __init__(
        self,
        recipe: Recipe,
        stores: Sequence[StreamStore],
        encoder: CaptionEncoder,
        device: torch.device,
        sampler: Sampler,
    ) -> None:
        """Build and initialise the networks from the recipe's seed."""
        self.recipe, self.stores, self.encoder, self.device, self.sampler = recipe, stores, encoder, device, sampler
        torch.manual_seed(recipe.seed)
        self.networks = self.build().to(device)
        self.module: nn.Module = self.networks
        self.weights = torch.tensor([store.stream.weight for store in stores], dtype=torch.float64)
        self.empty = torch.from_numpy(encoder([""])[0].astype("int64"))
        self.captions = {
            store.stream.name: CaptionDraw(store.caption_lengths(encoder.pad_id), recipe.flow.text_step, encoder.length)
            for store in stores
        }

    def build(self) -> FlowNetworks:
        """The untrained networks."""
        return FlowNetworks(self.recipe.networks)

    def batch(self, step: int, rank: Rank) -> object:
        """This rank's rows of the step."""
        return self.flow_batch(step, rank)

    def flow_batch(self, step: int, rank: Rank) -> FlowBatch:
        """This rank's rows: stream, rows, phrasings, dropped captions, times and noise, all from (seed, step)."""
        return self.batch_of(self.pick(step), rank)

    def pick(self, step: int) -> Pick:
        """The captions of a step, for all ranks."""
        generator = generator_of(self.recipe, step)
        store = self.stores[self._stream(step)]
        captions, length = self.captions[store.stream.name].draw(
            self.recipe.optim.batch, self.recipe.flow.full_length, generator
        )
        return Pick(store, captions, length, generator)

    def _stream(self, step: int) -> int:
        """Which stream a step takes: each as often as its weight says, at even distances."""
        reached = self.weights.cumsum(0) / self.weights.sum()
        return min(int((reached <= turn(self.recipe, step)).sum()), len(reached) - 1)

    def batch_of(self, pick: Pick, rank: Rank) -> FlowBatch:
        """This rank's rows of what was picked; its generator goes on."""
        store, captions, length, generator = pick.store, pick.captions, pick.length, pick.generator
        stream, count, flow = store.stream, self.recipe.optim.batch, self.recipe.flow
        dropped = torch.rand(count, generator=generator) < flow.caption_dropout
        t_B = draw_times(count, flow.shape, flow.shift, generator)
        tokens, channels = stream.grid[0] * stream.grid[1], 4 * self.recipe.networks.z_channels
        noise = torch.randn(count, tokens, channels, generator=generator)
        mine = rank.rows
        rows = store.rows(captions[mine])
        ids = torch.where(dropped[mine, None], self.empty, rows.ids_BT)[:, :length].to(self.device)
        references = rows.references_BRC
        return FlowBatch(
            x0_BLC=rows.x0_BLC.to(self.device),
            noise_BLC=noise[mine].to(self.device),
            t_B=t_B[mine].to(self.device),
            grid=stream.grid,
            ids_BT=ids,
            attended_BT=self.encoder.attended(ids),
            references_BRC=None if references is None else references.to(self.device),
            reference_grids=(stream.reference_grid,) * stream.references,
        )

    def sample(self, path: Path, step: int) -> dict[str, float]:
        """Draw a sheet with the current weights."""
        return self.sampler(self.networks, path, step)
