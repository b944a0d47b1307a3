"""An image classifier in a folder, as transformers keeps it: config.json, preprocessor_config.json, safetensors.

torch and transformers are imported when the first picture is judged; the folder is looked at when it is opened.
"""

import json
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from licht.core.errors import InvalidSettings
from licht.core.request import Picture


class FolderClassifier:
    """Any network that `AutoModelForImageClassification` knows; nothing is fetched and no code of the folder is run."""

    def __init__(self, folder: Path) -> None:
        """Raises `InvalidSettings` for a folder without configuration, labels or safetensors."""
        try:
            labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidSettings(f"{folder} has no config.json with id2label; check LICHT_IMAGE_FILTER") from error
        if not isinstance(labels, dict) or not (folder / "preprocessor_config.json").is_file():
            raise InvalidSettings(f"{folder} has no preprocessor_config.json; check LICHT_IMAGE_FILTER")
        if not any(folder.glob("*.safetensors")):
            raise InvalidSettings(f"{folder} has no safetensors; other files of weights can run code and are not read")
        self._folder, self._lock = folder, threading.Lock()
        self._labels = {int(number): str(label) for number, label in labels.items()}
        self._loaded: tuple[Any, Any] | None = None

    def scores(self, picture: Picture) -> dict[str, float]:
        """Label -> probability by softmax."""
        import torch

        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            processor, model = self._loaded
            image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
            with torch.inference_mode():
                logits = model(**processor(images=image, return_tensors="pt")).logits[0]
            probabilities = torch.softmax(logits.float(), 0).tolist()
        return {self._labels[number]: probability for number, probability in enumerate(probabilities)}

    def _load(self) -> tuple[Any, Any]:
        import transformers

        options = {"local_files_only": True, "trust_remote_code": False}
        processor = transformers.AutoImageProcessor.from_pretrained(self._folder, **options)
        network = transformers.AutoModelForImageClassification
        return processor, network.from_pretrained(self._folder, use_safetensors=True, **options).eval()
