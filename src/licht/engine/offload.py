"""Networks that are larger than the device: each block comes while the one before it computes, then goes.

On an accelerator a block is copied from memory, or straight from its mapped file, by a thread and a stream of its own.
On a processor its pages are read ahead and handed back. Two blocks are there at a time.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from licht.quant.int8 import Int8Linear
from licht.quant.pages import Mappings, mappings, trim

BLOCKS = ("double_blocks", "single_blocks", "layers")
"""Where the blocks of transformer and tower are; everything else stays on the device."""

Block = Sequence[nn.Module]
"""The layers of one block that have tensors of their own."""


class Carrier(Protocol):
    """How a block comes and goes."""

    def begin(self, block: int) -> None:
        """Start to fetch a block; returns at once."""

    def finish(self, block: int) -> None:
        """Have a block there that was begun."""

    def leave(self, block: int) -> None:
        """Let a block go."""


class BlockStream:
    """Which of the blocks are there. They are expected in order, again and again; any other order works, but waits."""

    def __init__(self, count: int, carrier: Carrier) -> None:
        """Nothing is there yet."""
        self.count, self.carrier = count, carrier
        self.current: int | None = None
        self.coming: int | None = None

    def arrive(self, block: int) -> None:
        """Called before anything of a block runs: it is there afterwards, and the one after it is on its way."""
        if block == self.current:
            return
        if self.current is not None:
            self.carrier.leave(self.current)
        if self.coming != block:
            if self.coming is not None:
                self.carrier.finish(self.coming)
                self.carrier.leave(self.coming)
            self.carrier.begin(block)
        self.carrier.finish(block)
        self.current, self.coming = block, None
        following = (block + 1) % self.count
        if following != block:
            self.carrier.begin(following)
            self.coming = following


def stream_blocks(network: nn.Module, device: torch.device) -> int:
    """Keep the blocks of `network` where they are and run it on `device`; returns the bytes that come and go.

    Everything else moves to the device for good.
    """
    for name, layer in network.named_modules():
        if name.partition(".")[0] not in BLOCKS:
            _set(layer, {key: tensor.to(device) for key, tensor in own_tensors(layer).items()})
    blocks = [[*_layers(block)] for name in BLOCKS for block in getattr(network, name, ())]
    size = sum(memory_bytes(layer) for block in blocks for layer in block)
    carrier: Carrier = PageCarrier(blocks) if device.type == "cpu" else CopyCarrier(blocks, device, network)
    stream = BlockStream(len(blocks), carrier)
    for number, block in enumerate(blocks):
        for layer in block:
            layer.register_forward_pre_hook(_arrival(stream, number))
    return size


def release(*networks: nn.Module | None) -> None:
    """Hand back the pages of mapped weights, and freed memory, of networks that are not needed now."""
    held = mappings()
    for network in networks:
        if network is not None:
            held.let_go(tensor for layer in network.modules() for tensor in own_tensors(layer).values())
    trim()


def leave_as_stored(layers: Iterable[nn.Module]) -> None:
    """Have a processor multiply integers as they are stored, without a copy in the arrangement that is faster.

    Making the copy takes longer than it saves where a layer is used once or twice before it goes.
    """
    for layer in layers:
        if isinstance(layer, Int8Linear):
            layer.turns = False


class PageCarrier:
    """Blocks of mapped files on a processor: pages are asked for and let go. What is not mapped stays."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        """Integers are multiplied as they are stored: a rearranged copy could not be let go."""
        self.blocks = blocks
        self.mappings: Mappings = mappings()
        leave_as_stored(layer for block in blocks for layer in block)

    def begin(self, block: int) -> None:
        """Ask the system to read."""
        self.mappings.ask_for(self._tensors(block))

    def finish(self, block: int) -> None:
        """Pages arrive when they are touched."""

    def leave(self, block: int) -> None:
        """Hand the pages back."""
        self.mappings.let_go(self._tensors(block))

    def _tensors(self, block: int) -> Iterator[Tensor]:
        return (tensor for layer in self.blocks[block] for tensor in own_tensors(layer).values())


class CopyCarrier:
    """Blocks that are copied to an accelerator by a thread of its own, on a stream of its own."""

    def __init__(self, blocks: Sequence[Block], device: torch.device, owner: object) -> None:
        """The thread ends when `owner` is gone."""
        self.blocks, self.device = blocks, device
        self.kept = [[own_tensors(layer) for layer in block] for block in blocks]
        self.side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.coming: dict[int, Future[list[dict[str, Tensor]]]] = {}
        self.thread = ThreadPoolExecutor(1, "weights")
        weakref.finalize(owner, self.thread.shutdown, wait=False)

    def begin(self, block: int) -> None:
        """Start to copy."""
        self.coming[block] = self.thread.submit(self._copy, self.kept[block])

    def finish(self, block: int) -> None:
        """Wait for the copy, and let the device's work wait for it too."""
        copies = self.coming.pop(block).result()
        if self.side is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.side)
            for tensor in (tensor for layer in copies for tensor in layer.values()):
                tensor.record_stream(current)
        for layer, copied in zip(self.blocks[block], copies, strict=True):
            _set(layer, copied)

    def leave(self, block: int) -> None:
        """Put back what was copied; the device's memory is free when its work with it is done."""
        for layer, kept in zip(self.blocks[block], self.kept[block], strict=True):
            _set(layer, kept)

    def _copy(self, layers: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        if self.side is None:
            return [{name: tensor.to(self.device) for name, tensor in layer.items()} for layer in layers]
        with torch.cuda.stream(self.side):
            # the copy to pinned memory happens here, in this thread; the one to the device runs beside its work
            return [
                {name: tensor.pin_memory().to(self.device, non_blocking=True) for name, tensor in layer.items()}
                for layer in layers
            ]


def own_tensors(layer: nn.Module) -> dict[str, Tensor]:
    """The tensors of a layer itself, without those of its parts."""
    return {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}


def memory_bytes(layer: nn.Module) -> int:
    """Bytes of a layer's own tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in own_tensors(layer).values())


def _layers(block: nn.Module) -> Iterable[nn.Module]:
    return (layer for layer in block.modules() if own_tensors(layer))


def _set(layer: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        parameter = isinstance(getattr(layer, name), nn.Parameter)
        setattr(layer, name, nn.Parameter(tensor, requires_grad=False) if parameter else tensor)


def _arrival(stream: BlockStream, block: int) -> Callable[[nn.Module, Any], None]:
    def arrive(layer: nn.Module, inputs: Any) -> None:  # noqa: ANN401 - whatever the layer takes
        del layer, inputs
        stream.arrive(block)

    return arrive
