"""The image filter: a classifier that is plugged in, and what its scores mean at each tolerance.

Licht ships no classifier. An operator names one: an ONNX file with the usual input (1, 3, H, W), an HTTP address that
takes a PNG and answers a JSON object of label -> probability, the folder of a transformers image classifier, or a
function of their own.
"""

import io
import json
import math
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from licht.core.errors import InvalidSettings, NotAvailable
from licht.core.request import Picture
from licht.safety.plugins import is_plugin, plugin

HARMLESS: Final = frozenset({"normal", "neutral", "safe", "sfw", "drawings", "drawing"})
"""Labels that never refuse; every other label does, from its threshold on."""
THRESHOLDS: Final = (0.50, 0.70, 0.85, 0.90, 0.95, 0.98)
"""By tolerance, 0 to 5: the official code refuses from 0.85 on."""
TIMEOUT_S: Final = 10.0
_MAX_ANSWER_BYTES: Final = 65_536
_SIDE_PX: Final = 1024


class FilterFailed(Exception):
    """The classifier gave no answer; whether that refuses is a setting."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The label that weighs most against a picture, and whether it is enough to refuse."""

    label: str
    score: float
    refused: bool


class Classifier(Protocol):
    """Anything that gives pictures labels."""

    def scores(self, picture: Picture) -> dict[str, float]:
        """Label -> probability. Raises `FilterFailed`."""
        ...


class ImageFilter:
    """A classifier and the thresholds of the tolerances."""

    def __init__(self, classifier: Classifier, needs_torch: bool = False) -> None:
        """Judge with `classifier`; one that `needs_torch` is asked by processes that draw, not by the API."""
        self._classifier = classifier
        self.needs_torch = needs_torch

    def judge(self, picture: Picture, tolerance: int) -> Verdict:
        """The worst label and whether it refuses. Raises `FilterFailed` for a classifier that fails in any way."""
        try:
            scores = self._classifier.scores(picture)
        except FilterFailed:
            raise
        except Exception as error:  # a plug-in may raise anything, and none of it may open the door
            raise FilterFailed(f"the classifier raised {type(error).__name__}") from error
        bad = {label: score for label, score in scores.items() if label.lower() not in HARMLESS}
        if not scores or not all(0 <= score <= 1 for score in scores.values()):
            raise FilterFailed("the classifier gave no probabilities")
        if not bad:
            return Verdict("safe", 0.0, refused=False)
        label, score = max(bad.items(), key=lambda item: item[1])
        return Verdict(label, score, refused=score >= THRESHOLDS[tolerance])


def open_filter(source: str) -> ImageFilter:
    """The filter behind an address or a path. Raises `NotAvailable` or `InvalidSettings`."""
    if urlsplit(source).scheme in ("http", "https"):
        return ImageFilter(HttpClassifier(source))
    if is_plugin(source):
        return ImageFilter(_classifier_of(source))
    path = Path(source)
    if path.suffix == ".onnx":
        return ImageFilter(OnnxClassifier(path))
    if path.is_dir():
        from licht.safety.folder_classifier import FolderClassifier

        return ImageFilter(FolderClassifier(path), needs_torch=True)
    raise InvalidSettings(
        f"LICHT_IMAGE_FILTER is {source!r}; use a file ending in .onnx, the folder of a transformers classifier, an "
        "http address or python:module:function"
    )


def _classifier_of(source: str) -> Classifier:
    """What an operator's function makes. Raises `InvalidSettings`."""
    made = plugin(source, "LICHT_IMAGE_FILTER")()
    if not callable(getattr(made, "scores", None)):
        raise InvalidSettings(f"{source} makes a {type(made).__name__} without a method scores(picture)")
    classifier: Classifier = made
    return classifier


class HttpClassifier:
    """Posts a PNG of at most 1024 pixels a side and reads {label: probability}."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S) -> None:
        """Ask `address`, which the operator has chosen; redirects are not followed."""
        self._address, self._timeout_s = address, timeout_s
        self._opener = urllib.request.build_opener(_NoRedirect)

    def scores(self, picture: Picture) -> dict[str, float]:
        """Label -> probability. Raises `FilterFailed`."""
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked when the filter was opened
            self._address, data=png_of(picture, _SIDE_PX), headers={"content-type": "image/png"}
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                found = json.loads(answer.read(_MAX_ANSWER_BYTES))
        except (OSError, ValueError) as error:
            raise FilterFailed("the image filter's address gave no usable answer") from error
        if not isinstance(found, dict):
            raise FilterFailed("the image filter's address gave no JSON object")
        return {str(label): float(score) for label, score in found.items() if isinstance(score, int | float)}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any) -> None:  # noqa: ANN401 - as the library has it
        return None


class OnnxClassifier:
    """An image classifier in ONNX: RGB (1, 3, H, W) about [-1, 1] in, logits out; labels from its metadata.

    The file's metadata entry `labels` is a JSON list; without one, the two labels are normal and nsfw.
    """

    def __init__(self, path: Path) -> None:
        """Open a file. Raises `NotAvailable` without onnxruntime, `InvalidSettings` for another kind of network."""
        try:
            import onnxruntime
        except ImportError:
            raise NotAvailable("an ONNX image filter needs onnxruntime; install it, or use an http address") from None
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's errors share no base
            raise InvalidSettings(f"{path} is no ONNX file that can be opened; check LICHT_IMAGE_FILTER") from error
        (given,) = self._session.get_inputs()
        labels = self._session.get_modelmeta().custom_metadata_map.get("labels", '["normal", "nsfw"]')
        self._name, self._labels = given.name, [str(label) for label in json.loads(labels)]
        sides = [side for side in given.shape[2:] if isinstance(side, int)]
        self._side_px = sides[0] if sides else 224

    def scores(self, picture: Picture) -> dict[str, float]:
        """Label -> probability by softmax."""
        side = self._side_px
        image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
        pixels = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
        (logits,) = self._session.run(None, {self._name: pixels.transpose(2, 0, 1)[None]})[:1]
        values = np.asarray(logits, np.float64).reshape(-1)
        if len(values) != len(self._labels) or not np.isfinite(values).all():
            raise FilterFailed("the classifier's output does not fit its labels")
        powers = [math.exp(value - values.max()) for value in values]
        return {label: power / sum(powers) for label, power in zip(self._labels, powers, strict=True)}


def png_of(picture: Picture, side_px: int) -> bytes:
    """A PNG for a filter, both sides at most `side_px`."""
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    image.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
