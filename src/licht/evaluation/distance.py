"""How far two sets of pictures are from each other, in what the judge sees of them."""

import torch
from torch import Tensor

from licht.core.errors import InvalidRequest


def energy_distance(ours_NC: Tensor, theirs_MC: Tensor) -> float:
    """`2 E|x - y| - E|x - x'| - E|y - y'|` (Szekely and Rizzo, 2013), unbiased: around 0 for equal distributions.

    Features are first brought to mean 0 and deviation 1 of `theirs`, and lengths are of the mean square. Raises
    `InvalidRequest` for fewer than two pictures.
    """
    if len(ours_NC) < 2 or len(theirs_MC) < 2:
        raise InvalidRequest("a distance needs at least two pictures on either side", field="n")
    mean, deviation = theirs_MC.double().mean(0), theirs_MC.double().std(0).clamp(min=1e-6)
    ours, theirs = (ours_NC.double() - mean) / deviation, (theirs_MC.double() - mean) / deviation
    between = 2 * torch.cdist(ours, theirs).mean() - _among(ours) - _among(theirs)
    return float(between / ours.shape[1] ** 0.5)


def _among(x_NC: Tensor) -> Tensor:
    """Mean over pairs of different pictures."""
    return torch.cdist(x_NC, x_NC).sum() / (len(x_NC) * (len(x_NC) - 1))
