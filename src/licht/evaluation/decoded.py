"""Pictures as they come out of an autoencoder: what the best of models would give of a true picture."""

from typing import Final

import torch
from torch import Tensor

from licht.model.autoencoder import Autoencoder
from licht.model.precision import multiplies_bfloat16

_AT_ONCE: Final = 32


@torch.inference_mode()
def decoded(autoencoder: Autoencoder, pictures_BHWC: Tensor, *, exact: bool = False) -> Tensor:
    """uint8 (B, H, W, 3), encoded and decoded again: `exact` as the weights are, else in bfloat16 where that takes less time."""
    weight = autoencoder.decoder.conv_in.weight
    fast = not exact and multiplies_bfloat16(weight.device)
    parts = []
    for part in pictures_BHWC.split(_AT_ONCE):
        image = part.permute(0, 3, 1, 2).to(weight.device, weight.dtype) / 127.5 - 1
        with torch.autocast(weight.device.type, torch.bfloat16, enabled=fast):
            back = autoencoder.decode(autoencoder.encode(image.contiguous(memory_format=torch.channels_last)))
        parts.append((back.float().cpu() + 1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))
    return torch.cat(parts)
