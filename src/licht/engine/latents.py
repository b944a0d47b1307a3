"""Latents as files: pictures in the space that all models with one autoencoder share.

A file holds one tensor, `latents` (1, C, rows, columns) float32, whitened as the flow transformers see it, and says in
its metadata which space that is and how large the picture was.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from licht.checkpoint.reader import first_line
from licht.checkpoint.save import official_tensors
from licht.core.errors import InvalidImage, InvalidOutput, InvalidRequest, OutputExists, OutputFailed
from licht.core.request import Picture, check_drawable
from licht.core.sizes import Size, ceil_to_tokens
from licht.engine.stages import decode, encode_reference
from licht.engine.start import filled
from licht.model.autoencoder import Autoencoder
from licht.sampling.noise import grid_to_tokens

FORMAT: Final = "licht-latents-1"
SUFFIX: Final = ".safetensors"
_TENSOR: Final = "latents"
_FIELDS: Final = ("format", "autoencoder", "width", "height")
_BANDED_PX: Final = 1024 * 1024
_HASH_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class Latents:
    """A picture of `size` in the latent space `space`; where sides are no whole tokens, the last ones are filled up."""

    latents_1CHW: Tensor
    size: Size
    space: str


def latent_space(autoencoder: Autoencoder) -> str:
    """Which latent space this is: SHA-256 over encoder and whitening, rounded to bfloat16.

    Equal for every layout and number format of one autoencoder, and for every decoder that was trained for its encoder.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(official_tensors(autoencoder).items()):
        if name.startswith(("encoder.", "bn.")):
            rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous().flatten()
            digest.update(f"{name}:{tuple(tensor.shape)}:".encode())
            digest.update(rounded.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def encode_picture(autoencoder: Autoencoder, picture: Picture) -> Latents:
    """The latents of a picture of any size that can be drawn. Raises `InvalidRequest` for another."""
    check_drawable(picture.size)
    whole = ceil_to_tokens(picture.width, picture.height)
    across, down = (0, whole.width - picture.width), (0, whole.height - picture.height)
    banded = whole.area_px > _BANDED_PX
    latents = encode_reference(autoencoder, filled(picture, across, down), banded)
    return Latents(latents.cpu(), picture.size, latent_space(autoencoder))


def decode_latents(autoencoder: Autoencoder, given: Latents) -> Picture:
    """The picture of latents. Raises `InvalidRequest` if they are of another space."""
    space = latent_space(autoencoder)
    if given.space != space:
        raise InvalidRequest(
            f"these latents are of another autoencoder ({given.space[:12]}) than this model's ({space[:12]}); "
            "decode them with a model that shares the autoencoder that made them",
            field="latents",
        )
    _, _, rows, columns = given.latents_1CHW.shape
    if given.latents_1CHW.shape[1] != autoencoder.config.token_channels:
        raise InvalidImage(
            f"the latents have {given.latents_1CHW.shape[1]} channels, the autoencoder has "
            f"{autoencoder.config.token_channels}; encode the picture again",
            field="latents",
        )
    banded = given.size.area_px > _BANDED_PX
    tokens = grid_to_tokens(given.latents_1CHW)
    whole = decode(autoencoder, tokens, (rows, columns), banded)
    if whole.size == given.size:
        return whole
    length = whole.width * 3
    kept = (whole.rgb[row * length : row * length + given.size.width * 3] for row in range(given.size.height))
    return Picture(given.size.width, given.size.height, b"".join(kept))


def read_latents(path: Path) -> Latents:
    """Read an untrusted file. Raises `InvalidImage` with what is wrong with it."""
    with _reading(path):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get(_FIELDS[0]) != FORMAT or any(name not in metadata for name in _FIELDS):
                raise InvalidImage(f"{path} holds no latents of Licht's; make some with licht encode", field="latents")
            sides = [metadata[name] for name in ("width", "height")]
            if list(file.keys()) != [_TENSOR] or not all(side.isdecimal() and len(side) <= 6 for side in sides):
                raise InvalidImage(f"{path} is damaged; encode the picture again", field="latents")
            size = Size(*(int(side) for side in sides))
            check_drawable(size)
            shape, kind = file.get_slice(_TENSOR).get_shape(), file.get_slice(_TENSOR).get_dtype()
            grid = ceil_to_tokens(size.width, size.height).grid
            if len(shape) != 4 or shape[0] != 1 or tuple(shape[2:]) != grid or kind != "F32":
                raise InvalidImage(
                    f"{path} holds {kind} latents of shape {shape} for a picture of {size} px; "
                    f"expected F32 and 1 x channels x {grid[0]} x {grid[1]}; encode the picture again",
                    field="latents",
                )
            latents = file.get_tensor(_TENSOR).clone()
        if not torch.isfinite(latents).all():
            raise InvalidImage(f"{path} holds values that are not finite; encode the picture again", field="latents")
        return Latents(latents, size, metadata["autoencoder"][:_HASH_CHARACTERS])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise InvalidImage(
            f"{path} is no safetensors file ({first_line(error)}); make latents with licht encode", field="latents"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise InvalidImage(f"{path} cannot be read ({reason}); check the path", field="latents") from error


def check_latents_output(path: Path, overwrite: bool = False) -> None:
    """Raise before any work if latents could not be written there: `InvalidOutput`, `OutputExists`."""
    if path.suffix.lower() != SUFFIX:
        raise InvalidOutput(f"{path} does not end in {SUFFIX}; latents are written as safetensors", field="output")
    if not path.parent.is_dir():
        raise InvalidOutput(f"the folder {path.parent} does not exist; create it or choose another", field="output")
    if path.is_dir():
        raise InvalidOutput(f"{path} is a folder; name a file", field="output")
    if os.path.lexists(path) and not overwrite:
        raise OutputExists(f"{path} exists; choose another name or pass --overwrite", field="output")


def write_latents(latents: Latents, path: Path, overwrite: bool = False) -> None:
    """Write atomically: the file is complete or absent. Raises `InvalidOutput`, `OutputExists` or `OutputFailed`."""
    check_latents_output(path, overwrite)
    said = (FORMAT, latents.space, str(latents.size.width), str(latents.size.height))
    data = save({_TENSOR: latents.latents_1CHW.float().contiguous()}, dict(zip(_FIELDS, said, strict=True)))
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputFailed(
            f"{path} cannot be written ({error.strerror or error}); make room or choose another place", field="output"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
