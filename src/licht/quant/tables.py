"""Small numbers by table: what a byte means is looked up, one or two values at a time.

On a processor this is several times as fast as converting or taking bytes apart.
"""

import torch
from torch import Tensor

_WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def look_up(codes: Tensor, table: Tensor) -> Tensor:
    """What `table` says of each byte of `codes` (..., n): (..., n), or (..., 2 n) for a table of pairs (256, 2)."""
    row_bytes = table[0].numel() * table.element_size()
    whole = table.contiguous().view(-1).view(_WHOLE[row_bytes])
    found = torch.index_select(whole, 0, codes.reshape(-1).view(torch.uint8).int())
    return found.view(table.dtype).view(*codes.shape[:-1], codes.shape[-1] * table[0].numel())


def every_byte(device: torch.device) -> Tensor:
    """0 to 255."""
    return torch.arange(256, device=device).to(torch.uint8)


def pairs(table_16: Tensor, low_first: bool) -> Tensor:
    """(256, 2): the values of a byte's two halves, the lower one first or last."""
    codes = every_byte(table_16.device).int()
    low, high = table_16[codes & 15], table_16[codes >> 4]
    return torch.stack([low, high] if low_first else [high, low], dim=1)


def expanded(scale_RG: Tensor, group: int) -> Tensor:
    """(R, G x group): each scale for every member of its group, written out, which products read faster."""
    return scale_RG[:, :, None].expand(-1, -1, group).reshape(scale_RG.shape[0], -1)
