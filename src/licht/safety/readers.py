"""Reading the text in a picture (OCR): a program or a function that the operator names; nothing is shipped."""

import importlib.util
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from licht.core.errors import InvalidSettings, NotAvailable
from licht.core.request import Picture
from licht.safety.image_filter import FilterFailed, png_of
from licht.safety.plugins import is_plugin, plugin

TIMEOUT_S: Final = 20.0
_SIDE_PX: Final = 2048
_MOST_CHARACTERS: Final = 32_768


class _RapidReader:
    """The package rapidocr-onnxruntime, whose weights are in it; opened when the first picture is read."""

    def __init__(self) -> None:
        if importlib.util.find_spec("rapidocr_onnxruntime") is None:
            raise NotAvailable("LICHT_OCR is rapidocr; install the package rapidocr-onnxruntime, or unset LICHT_OCR")
        self._lock = threading.Lock()
        self._engine: Callable[[NDArray[np.uint8]], tuple[list[tuple[object, str, float]] | None, object]] | None = None

    def __call__(self, picture: Picture) -> str:
        with self._lock:
            if self._engine is None:
                from rapidocr_onnxruntime import RapidOCR

                self._engine = RapidOCR()
            pixels = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
            lines, _ = self._engine(pixels[:, :, ::-1])
        return "\n".join(text for _, text, _ in lines or ())


class Reader:
    """Gives the text in a picture, whatever it comes from."""

    def __init__(self, source: str) -> None:
        """`rapidocr`, `tesseract`, or `python:module:function`. Raises `InvalidSettings`, `NotAvailable`."""
        self._function: Callable[[Picture], object] | None = None
        self._program = ""
        if is_plugin(source):
            self._function = plugin(source, "LICHT_OCR")
        elif source == "rapidocr":
            self._function = _RapidReader()
        elif source == "tesseract":
            found = shutil.which("tesseract")
            if found is None:
                raise NotAvailable("LICHT_OCR is tesseract, which is not installed; install it or unset LICHT_OCR")
            self._program = found
        else:
            raise InvalidSettings(f"LICHT_OCR is {source!r}; use rapidocr, tesseract or python:module:function")

    def __call__(self, picture: Picture) -> str:
        """The text, at most 32,768 characters. Raises `FilterFailed`."""
        if self._function is None:
            return self._by_program(picture)
        try:
            text = self._function(picture)
        except Exception as error:  # a plug-in may raise anything, and none of it may open the door
            raise FilterFailed(f"the text reader raised {type(error).__name__}") from error
        if not isinstance(text, str):
            raise FilterFailed("the text reader gave no text")
        return text[:_MOST_CHARACTERS]

    def _by_program(self, picture: Picture) -> str:
        command = [self._program, "stdin", "stdout"]
        try:
            ended = subprocess.run(  # noqa: S603 - the program is the operator's, its arguments are fixed
                command, input=png_of(picture, _SIDE_PX), capture_output=True, timeout=TIMEOUT_S, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise FilterFailed(f"tesseract failed ({type(error).__name__})") from error
        return ended.stdout.decode("utf-8", "replace")[:_MOST_CHARACTERS]
