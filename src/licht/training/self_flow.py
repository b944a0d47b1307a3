"""Self-Flow: two noise levels in one picture, and an alignment of early layers with late ones of the average.

Each token is noised to one of two times; the student sees that, the running average of its weights the same picture at
the lesser of the two times everywhere. Beside the velocity the student learns to say, from a layer at 0.3 of the depth,
what the average has at 0.7: `1 - cos(aligner(h_student), h_average)` (arXiv 2603.06507).

Shapes: B batch, L latent tokens, T text tokens, C channels, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from licht.model.positions import image_ids, reference_ids, text_ids
from licht.model.transformer import Flux2Transformer, ReferenceCache
from licht.training.flow import FlowBatch, FlowNetworks
from licht.training.objectives import velocity_loss

MASKED: Final = 0.25
"""Share of the tokens that take the second time."""
_STUDENT_DEPTH, _AVERAGE_DEPTH = 0.3, 0.7
_PREFIX: Final = "transformer."


@dataclass(frozen=True, slots=True)
class SelfFlowBatch:
    """Rows of a flow batch, a second time for each, and which tokens take it."""

    rows: FlowBatch
    second_B: Tensor
    masked_BL: Tensor


class SelfFlow(nn.Module):
    """The networks and the aligner; `forward` is the loss."""

    def __init__(self, networks: FlowNetworks, weight: float) -> None:
        """Share the parameters of `networks`. `follow` must be called before the first batch."""
        super().__init__()
        self.transformer, self.tower = networks.transformer, networks.tower
        width = networks.transformer.config.hidden_size
        self.aligner = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        self.weight = weight
        self._average: Mapping[str, Tensor] = {}

    def follow(self, average: Mapping[str, Tensor]) -> None:
        """Align with these averaged weights, which whoever trains goes on updating in place."""
        self._average = {
            name.removeprefix(_PREFIX): tensor for name, tensor in average.items() if name.startswith(_PREFIX)
        }

    def forward(self, batch: SelfFlowBatch) -> dict[str, Tensor]:
        """Mean squared error of the velocity, and the weighted misalignment."""
        rows = batch.rows
        text = self.tower(rows.ids_BT, rows.attended_BT)
        cache = self._references(rows)
        times_BL = torch.where(batch.masked_BL, batch.second_B[:, None], rows.t_B[:, None])
        mixed, target = _noised(rows, times_BL), rows.noise_BLC - rows.x0_BLC
        velocity, early = self._pass(None, _STUDENT_DEPTH, (rows, mixed, times_BL, text, cache))
        with torch.no_grad():
            least_B = torch.minimum(rows.t_B, batch.second_B)
            cleaner = _noised(rows, least_B[:, None].expand_as(times_BL))
            _, late = self._pass(self._average, _AVERAGE_DEPTH, (rows, cleaner, least_B, text, cache))
        likeness = F.cosine_similarity(self.aligner(early).float(), late.float(), dim=-1)
        return {
            "velocity": velocity_loss(velocity, target).mean(),
            "self_flow": self.weight * (1 - likeness).mean(),
        }

    def _references(self, rows: FlowBatch) -> ReferenceCache | None:
        if rows.references_BRC is None:
            return None
        positions = reference_ids(rows.reference_grids).to(rows.references_BRC.device)
        return self.transformer.reference_cache(rows.references_BRC, positions)

    def _pass(
        self,
        weights: Mapping[str, Tensor] | None,
        depth: float,
        inputs: tuple[FlowBatch, Tensor, Tensor, Tensor, ReferenceCache | None],
    ) -> tuple[Tensor, Tensor]:
        """Velocity, and the picture's tokens after the layer at `depth`, with the student's own or other weights."""
        rows, x_BLC, times, text, cache = inputs
        device, layer = x_BLC.device, Layer(self.transformer, depth)
        arguments = (
            *(x_BLC, image_ids(rows.grid).to(device), text, text_ids(text.shape[1]).to(device)),
            *(times, None, cache),
        )
        own = weights if weights is not None else {}
        velocity: Tensor = functional_call(self.transformer, dict(own), arguments, {"watch": layer})
        return velocity, layer.tokens


def _noised(rows: FlowBatch, times_BL: Tensor) -> Tensor:
    return (1 - times_BL[..., None]) * rows.x0_BLC + times_BL[..., None] * rows.noise_BLC


class Layer:
    """Watches a transformer, and keeps the picture's tokens (B, L, D) after the block at a share of the depth."""

    tokens: Tensor

    def __init__(self, transformer: Flux2Transformer, depth: float) -> None:
        """`depth` is in [0, 1]."""
        count = len(transformer.double_blocks) + len(transformer.single_blocks)
        self._at = min(max(round(depth * count) - 1, 0), count - 1)

    def __call__(self, number: int, tokens: Tensor) -> None:
        """Keep the tokens if this is the block."""
        if number == self._at:
            self.tokens = tokens
