"""Adapters: small branches beside the linear layers of a network, switched on for each row of a batch.

A branch never touches the weights beside it, so it works on quantised ones and is switched without reloading anything;
on plain weights it may be merged. Shapes: B batch, L tokens, I inputs and O outputs of a layer, R rank.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from licht.model.linear import StackedLinear


class Delta(Protocol):
    """A change of a weight matrix that knows how to be applied without being written out."""

    def apply(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O): what the change adds to the layer's output."""

    def matrix(self) -> Tensor:
        """The change itself, (O, I) float32."""

    def to(self, device: torch.device, dtype: torch.dtype) -> "Delta":
        """The same change elsewhere."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """LoRA: `up @ down`, the factor alpha / rank already in `up`."""

    down_RI: Tensor
    up_OR: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Two narrow matrix products."""
        return F.linear(F.linear(x, self.down_RI), self.up_OR)

    def matrix(self) -> Tensor:
        """The product."""
        return self.up_OR.float() @ self.down_RI.float()

    def to(self, device: torch.device, dtype: torch.dtype) -> "LowRank":
        """Both factors elsewhere."""
        return LowRank(self.down_RI.to(device, dtype), self.up_OR.to(device, dtype))


@dataclass(frozen=True, slots=True)
class Kronecker:
    """LoKr: `kron(left, right)` with the factor already in `left`; output row o is (o // right rows, o % right rows)."""

    left: Tensor
    right: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """`kron(A, B) x` is `B X A^T` for x written as a matrix: the large matrix is never built."""
        blocks = F.linear(x.unflatten(-1, (self.left.shape[1], self.right.shape[1])), self.right)
        return torch.einsum("...io,ji->...jo", blocks, self.left).flatten(-2)

    def matrix(self) -> Tensor:
        """The Kronecker product."""
        return torch.kron(self.left.float(), self.right.float())

    def to(self, device: torch.device, dtype: torch.dtype) -> "Kronecker":
        """Both factors elsewhere."""
        return Kronecker(self.left.to(device, dtype), self.right.to(device, dtype))


@dataclass(frozen=True, slots=True)
class Dense:
    """A change that has no small form."""

    weight_OI: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """One matrix product."""
        return F.linear(x, self.weight_OI)

    def matrix(self) -> Tensor:
        """The matrix."""
        return self.weight_OI.float()

    def to(self, device: torch.device, dtype: torch.dtype) -> "Dense":
        """The matrix elsewhere."""
        return Dense(self.weight_OI.to(device, dtype))


@dataclass(frozen=True, slots=True)
class Branch:
    """One change of `rows` output rows of a layer from row `start` on.

    With `magnitude` it is DoRA: the changed rows (or, for a magnitude of shape (1, I), columns) are scaled to those
    lengths. `gain` is that scale, which depends on the layer's weights and is set by `Adapters.add`.
    """

    delta: Delta
    start: int
    rows: int
    magnitude: Tensor | None = None
    gain: Tensor | None = None

    @property
    def by_column(self) -> bool:
        """Whether the magnitude belongs to the inputs."""
        return self.magnitude is not None and self.magnitude.ndim == 2 and self.magnitude.shape[0] == 1

    def fitted(self, layer: nn.Module, device: torch.device, dtype: torch.dtype) -> "Branch":
        """This branch for one layer: on its device, with the gain computed in float32 from its dequantised weights."""
        moved = replace(self, delta=self.delta.to(device, dtype))
        if self.magnitude is None:
            return moved
        changed = self._rows_of(layer).to(device) + self.delta.matrix().to(device)
        length = changed.norm(dim=0 if self.by_column else 1).clamp_min(torch.finfo(torch.float32).tiny)
        return replace(moved, gain=(self.magnitude.to(device).float().flatten() / length).to(dtype))

    def apply(self, x: Tensor, layer: nn.Module, base: Tensor) -> Tensor:
        """What the branch adds to the rows it covers; `base` is the layer's own output for `x`."""
        if self.gain is None:
            return self.delta.apply(x)
        if self.by_column:
            scaled = x * self.gain
            moved: Tensor = layer.forward(scaled - x)[..., self.start : self.start + self.rows]
            return moved + self.delta.apply(scaled)
        own = base[..., self.start : self.start + self.rows]
        return own * (self.gain - 1) + self.delta.apply(x) * self.gain

    def matrix(self, layer: nn.Module) -> Tensor:
        """The change as (rows, I) float32, for a layer that it is fitted to."""
        delta = self.delta.matrix()
        if self.gain is None:
            return delta
        weight, gain = self._rows_of(layer), self.gain.float()
        return (weight + delta) * (gain if self.by_column else gain[:, None]) - weight

    def _rows_of(self, layer: nn.Module) -> Tensor:
        weight = layer.weight
        assert isinstance(weight, Tensor)  # every linear layer has a weight, quantised ones a dequantised one
        return weight[self.start : self.start + self.rows].float()


@dataclass(frozen=True, slots=True)
class Adapter:
    """A whole LoRA: branches by the official name of the layer that they stand beside."""

    branches: Mapping[str, tuple[Branch, ...]]

    @property
    def elements(self) -> int:
        """Numbers in all its branches."""
        branches = (branch for group in self.branches.values() for branch in group)
        return sum(tensor.numel() for branch in branches for tensor in _tensors_of(branch))


Strengths = Mapping[str, float]
"""Name of an adapter -> strength. 0 and absence are the same."""


class Adapters:
    """The adapters of one network. Nothing changes until `using` says which rows of the batch use which of them.

    One adapter set serves one thread at a time, like the network itself.
    """

    def __init__(self, network: nn.Module) -> None:
        """Stand beside `network`; its weights are not touched."""
        self.network = network
        self._fitted: dict[str, dict[str, tuple[Branch, ...]]] = {}
        self._hooks: dict[str, RemovableHandle] = {}
        self._rows: tuple[Strengths, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters that can be used."""
        return tuple(self._fitted)

    @property
    def memory_bytes(self) -> int:
        """Bytes that the branches take."""
        branches = (b for layers in self._fitted.values() for group in layers.values() for b in group)
        tensors = (tensor for branch in branches for tensor in _tensors_of(branch))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def add(self, name: str, adapter: Adapter, dtype: torch.dtype, device: torch.device) -> None:
        """Make `adapter` usable as `name`. It computes in `dtype`, on `device`: those of the activations."""
        fitted = {}
        for place, branches in adapter.branches.items():
            layer = self.network.get_submodule(place)
            fitted[place] = tuple(branch.fitted(layer, device, dtype) for branch in branches)
        self._fitted[name] = fitted
        for place in fitted.keys() - self._hooks.keys():
            layer = self.network.get_submodule(place)
            self._hooks[place] = layer.register_forward_hook(self._hook(place), prepend=True)

    def remove(self, name: str) -> None:
        """Forget an adapter, and stand no longer beside the layers that only it changed."""
        del self._fitted[name]
        needed = {place for layers in self._fitted.values() for place in layers}
        for place in self._hooks.keys() - needed:
            self._hooks.pop(place).remove()

    @contextmanager
    def using(self, rows: Sequence[Strengths]) -> Iterator[None]:
        """Use adapters while the context is open: one entry for the whole batch, or one for each of its rows."""
        unknown = {name for row in rows for name in row} - self._fitted.keys()
        if unknown:
            raise ValueError(f"no adapter {min(unknown)!r} was added")
        before, self._rows = self._rows, tuple(rows)
        try:
            yield
        finally:
            self._rows = before

    def merge(self, strengths: Strengths) -> None:
        """Write the changes into the plain weights of the network, for good. Raises `TypeError` on quantised ones."""
        places = {place for name in strengths for place in self._fitted[name]}
        layers = {place: self._plain(place) for place in sorted(places)}
        for place, layer in layers.items():
            weight = layer.weight.float()
            change = torch.zeros_like(weight)
            for name, strength in strengths.items():
                for branch in self._fitted[name].get(place, ()):
                    change[branch.start : branch.start + branch.rows] += strength * branch.matrix(layer)
            _replace_weight(layer, weight + change)

    def _plain(self, place: str) -> nn.Linear | StackedLinear:
        layer = self.network.get_submodule(place)
        if not isinstance(layer, nn.Linear | StackedLinear):
            raise TypeError(f"{place} is quantised; a change would be rounded away in it")
        return layer

    def _hook(self, place: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        def add_branches(layer: nn.Module, inputs: tuple[Tensor], base: Tensor) -> Tensor:
            return self._changed(place, layer, inputs[0], base) if self._rows else base

        return add_branches

    def _changed(self, place: str, layer: nn.Module, x: Tensor, base: Tensor) -> Tensor:
        """The layer's output with the branches of every row."""
        if len(self._rows) not in (1, x.shape[0]):
            raise ValueError(f"{len(self._rows)} rows of adapters for a batch of {x.shape[0]}")
        out = base
        for name, layers in self._fitted.items():
            strengths = [row.get(name, 0.0) for row in self._rows]
            used = [number for number, strength in enumerate(strengths) if strength]
            if not used or place not in layers:
                continue
            out = out.clone() if out is base else out
            whole = len(used) == len(strengths)
            chosen = slice(None) if whole else torch.tensor(used, device=x.device)
            scale = torch.tensor([strengths[n] for n in used], device=x.device, dtype=x.dtype)
            scale = scale.view(-1, *(1,) * (x.ndim - 1))
            for branch in layers[place]:
                columns = slice(branch.start, branch.start + branch.rows)
                out[chosen, ..., columns] += scale * branch.apply(x[chosen], layer, base[chosen])
        return out


def _tensors_of(branch: Branch) -> Iterator[Tensor]:
    for part in (branch.delta, branch):
        for slot in ("down_RI", "up_OR", "left", "right", "weight_OI", "gain"):
            tensor = getattr(part, slot, None)
            if isinstance(tensor, Tensor):
                yield tensor


def _replace_weight(layer: nn.Linear | StackedLinear, weight: Tensor) -> None:
    """Give a layer new weights of its own: those it has may be mapped from a file."""
    if isinstance(layer, StackedLinear):
        sizes = [block.shape[0] for block in layer.blocks]
        parts = zip(layer.blocks, weight.split(sizes), strict=True)
        layer.blocks = nn.ParameterList(nn.Parameter(new.to(old.dtype), requires_grad=False) for old, new in parts)
    else:
        layer.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)
