"""Optimisers: Muon for the matrices inside blocks and for kernels, AdamW for everything else, one schedule for all."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from licht.training.config import OptimConfig
from licht.training.muon import SharedMuon

_BLOCKS = ("double_blocks.", "single_blocks.", "layers.")


def is_block_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon trains this parameter: a matrix inside a block, not an embedding, a modulation or an end layer."""
    return parameter.ndim == 2 and any(block in name for block in _BLOCKS)


def is_inner_kernel(parameter: Tensor) -> bool:
    """Whether Muon may train this parameter: a kernel that neither reads nor writes colours."""
    return parameter.ndim == 4 and min(parameter.shape[:2]) > 3


def build_optimizers(
    parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig
) -> list[torch.optim.Optimizer]:
    """Up to three optimisers over all named parameters that are trained, in a fixed order."""
    matrices: list[nn.Parameter] = []
    kernels: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    critics: list[nn.Parameter] = []
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        if config.critic_rate != 1.0 and name.startswith("critic."):
            critics.append(parameter)
        elif config.muon and is_block_matrix(name, parameter):
            matrices.append(parameter)
        else:
            (kernels if config.muon_kernels and is_inner_kernel(parameter) else rest).append(parameter)
    optimizers: list[torch.optim.Optimizer] = []
    for parameters_of, scale in ((rest, 1.0), (critics, config.critic_rate)):
        if parameters_of:
            group = {"params": parameters_of, "scale": scale}
            optimizers.append(
                torch.optim.AdamW([group], lr=config.adamw_lr, betas=config.betas, weight_decay=config.weight_decay)
            )
    if matrices:
        # updates are scaled to the size that AdamW's would have, so one rate suits matrices of every shape
        optimizers.append(SharedMuon(matrices, config.muon_lr, weight_decay=config.weight_decay))
    if kernels:
        optimizers.append(SharedMuon(kernels, config.muon_lr))
    return optimizers


def rate_factor(step: int, config: OptimConfig) -> float:
    """Factor on every rate at `step` (from 0): linear warm-up, flat, linear decay to zero at the last step."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay_steps = max(1, round(config.decay_share * config.steps))
    return warm * min(1.0, (config.steps - step) / decay_steps)


def set_rates(optimizers: list[torch.optim.Optimizer], step: int, config: OptimConfig) -> float:
    """Set the learning rates for `step`; returns the factor."""
    factor = rate_factor(step, config)
    for optimizer in optimizers:
        base = config.muon_lr if isinstance(optimizer, SharedMuon) else config.adamw_lr
        for group in optimizer.param_groups:
            group["lr"] = base * factor * group.get("scale", 1.0)
    return factor
