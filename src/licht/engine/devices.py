"""Which device to compute on."""

import re

import torch

from licht.core.errors import InvalidRequest, NotAvailable

_DEVICE = re.compile(r"cpu|mps|cuda(:\d{1,3})?")


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" prefers a GPU. Raises `NotAvailable` or `InvalidRequest`."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not _DEVICE.fullmatch(name):
        raise InvalidRequest(f"device {name!r} is unknown; use auto, cpu, cuda, cuda:N or mps", field="device")
    kind, _, index = name.partition(":")
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(index or 0) >= present[kind]:
        raise NotAvailable(f"device {name!r} is not available on this machine; use --device auto", field="device")
    return torch.device(name)
