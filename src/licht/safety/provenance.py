"""Content credentials (C2PA): what a picture says about itself, signed.

A manifest says that a model made or edited the picture, which weights, from which references, and that it carries the
invisible watermark. It never holds the prompt, and no thumbnail: a thumbnail would carry private references along.
Reading makes no network request: without that, a crafted file could make the reader fetch any address.
"""

import hashlib
import html
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from licht import __version__
from licht.core.errors import InvalidSettings, OutputFailed
from licht.safety.certificates import CLAIM_SIGNING, DOCUMENT_SIGNING, EMAIL_PROTECTION, Credentials

if TYPE_CHECKING:
    import c2pa

SPECIFICATION: Final = "2.4.0"
_SOURCES: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
CREATED_SOURCE: Final = _SOURCES + "trainedAlgorithmicMedia"
EDITED_SOURCE: Final = _SOURCES + "compositeWithTrainedAlgorithmicMedia"
WATERMARK_ALGORITHM: Final = "licht.watermark.1"

MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
)
_TRAINING_USES: Final = ("cawg.ai_generative_training", "cawg.ai_training", "cawg.ai_inference", "cawg.data_mining")

RECIPE_ATTRIBUTE: Final = "licht:Recipe"
_RECIPE_NAMESPACE: Final = "tag:licht:recipe:1"

_LARGEST_CARRIED_BYTES: Final = 10**6
_LARGEST_MANIFEST_BYTES: Final = 10**6
"""Above this every reference is looked at for itself. A chain of twelve edits takes 72 kB."""

_HASHED_WHOLE_BYTES: Final = 512 * 10**6

_OFFLINE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
        "core": {"allowed_network_hosts": []},
        "builder": {"thumbnail": {"enabled": False}},
    }
)


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A reference: its file as it came, with whatever manifest it has, or None where only pixels are known."""

    file: bytes | None = field(default=None, repr=False)
    media_type: str = "image/png"


@dataclass(frozen=True, slots=True)
class Making:
    """How a picture was made: by which model and weights, from which references.

    With references the first is the parent that was edited, unless `edits` is False: then all of them are inputs.
    `payload` is what the watermark, of the algorithm `watermark`, holds. `training` None leaves the question of training
    open. `recipe` is what is needed to draw the picture again, as `core.recipe` writes it. `converted` says that the
    pixels are those of the one ingredient, in another kind of file. `ranker` chose the picture out of `candidates`.
    """

    model: str = "unknown model"
    weights_hash: str | None = None
    ingredients: tuple[Ingredient, ...] = ()
    edits: bool = True
    payload: int | None = None
    training: str | None = None
    recipe: str | None = None
    watermark: str = WATERMARK_ALGORITHM
    converted: bool = False
    candidates: int = 1
    ranker: str | None = None

    @property
    def source_type(self) -> str:
        """The IPTC digital source type."""
        return EDITED_SOURCE if self.ingredients and self.edits else CREATED_SOURCE


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file's credentials say, and whether they hold.

    `state` is "none", "trusted" (signed by one whom this reader trusts), "valid" (intact, signed by someone unknown) or
    "invalid" (broken, altered or expired). `problems` holds C2PA's codes.
    """

    state: str
    problems: tuple[str, ...] = ()
    signer: str | None = None
    source_types: tuple[str, ...] = ()
    generator: str | None = None
    model: str | None = None
    watermark_payload: int | None = None
    ingredients: int = 0


def weights_hash(paths: Sequence[Path]) -> str:
    """Which weights these files are: their SHA-256, or above 512 MB that of samples, which says so itself.

    A sample is a file's size, its first megabyte (the header) and 64 pieces of 64 kB from all over it.
    """
    total = sum(path.stat().st_size for path in paths)
    digest = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as file:
            if total <= _HASHED_WHOLE_BYTES:
                while piece := file.read(1 << 20):
                    digest.update(piece)
                continue
            size = path.stat().st_size
            digest.update(size.to_bytes(8, "big") + file.read(1 << 20))
            for number in range(64):
                file.seek(size * number // 64)
                digest.update(file.read(1 << 16))
    return ("sha256:" if total <= _HASHED_WHOLE_BYTES else "sampled-sha256:") + digest.hexdigest()


def metadata(making: Making, marked: bool = True) -> bytes:
    """An XMP packet, to be written before signing: the recipe, and unless not `marked` IPTC's digital source type."""
    attributes = {"xmp:CreatorTool": f"Licht {__version__}"}
    if marked:
        attributes["Iptc4xmpExt:DigitalSourceType"] = making.source_type
    if making.recipe is not None:
        attributes[RECIPE_ATTRIBUTE] = making.recipe
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:licht="{_RECIPE_NAMESPACE}" '
        + " ".join(f'{name}="{html.escape(value)}"' for name, value in attributes.items())
        + '/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


class Signer:
    """Signs encoded pictures with one set of credentials. Make it once; threads may share it."""

    def __init__(self, credentials: Credentials) -> None:
        """Raises `InvalidSettings` if the library refuses the credentials."""
        import c2pa

        self._credentials = credentials
        algorithm = credentials.algorithm.encode()
        stamp = credentials.time_stamp_url.encode() if credentials.time_stamp_url else None
        try:
            if credentials.signing is None:
                info = c2pa.C2paSignerInfo(algorithm, credentials.chain_pem, credentials.key_pem, stamp)
                self._signer = c2pa.Signer.from_info(info)
            else:
                named = c2pa.C2paSigningAlg[credentials.algorithm.upper()]
                self._signer = c2pa.Signer.from_callback(
                    credentials.signing, named, credentials.chain_pem.decode(), credentials.time_stamp_url
                )
            self._context = _context(credentials.root_pem, stamp_url=credentials.time_stamp_url)
        except c2pa.C2paError as error:
            raise InvalidSettings(
                "the signing certificate or its key is refused; check `licht provenance show`"
            ) from error

    def sign(self, data: bytes, file_format: str, making: Making) -> bytes:
        """`data`, a PNG, JPEG or WebP file, with a manifest in it. Raises `OutputFailed`.

        A reference whose credentials are broken, or larger than 1 MB, is listed without them: a stranger's file must
        neither cost its user a finished picture nor swell it.
        """
        import c2pa

        try:
            signed = self._signed(data, file_format, making)
            if len(signed) - len(data) <= _LARGEST_MANIFEST_BYTES:
                return signed
        except c2pa.C2paError as error:
            if all(ingredient.file is None for ingredient in making.ingredients):
                raise self._unsigned() from error
        carried = tuple(
            ingredient if self._can_carry(data, file_format, ingredient) else replace(ingredient, file=None)
            for ingredient in making.ingredients
        )
        # sound ones can contradict each other, where somebody has altered a copy: then none is carried
        bare = tuple(replace(ingredient, file=None) for ingredient in making.ingredients)
        for ingredients in (carried, bare):
            with suppress(c2pa.C2paError):
                return self._signed(data, file_format, replace(making, ingredients=ingredients))
        raise self._unsigned()

    def _unsigned(self) -> OutputFailed:
        stamped = self._credentials.time_stamp_url is not None
        asked = "see whether the server of LICHT_TIME_STAMP_URL answers, " if stamped else ""
        return OutputFailed(
            f"the picture cannot be signed; {asked}run `licht provenance show`, or draw with --policy off"
        )

    def _can_carry(self, data: bytes, file_format: str, ingredient: Ingredient) -> bool:
        import c2pa

        if ingredient.file is None:
            return True
        try:
            signed = self._signed(data, file_format, Making(ingredients=(ingredient,), edits=False))
        except c2pa.C2paError:
            return False
        return len(signed) - len(data) <= _LARGEST_CARRIED_BYTES

    def _signed(self, data: bytes, file_format: str, making: Making) -> bytes:
        """Raises the library's errors."""
        import c2pa

        media_type, signed = MEDIA_TYPES[file_format], io.BytesIO()
        with c2pa.Builder(json.dumps(manifest(making, media_type)), self._context) as builder:
            for number, ingredient in enumerate(making.ingredients, start=1):
                if ingredient.file is not None:
                    described = json.dumps(_ingredient(making, number, ingredient.media_type))
                    builder.add_ingredient(described, ingredient.media_type, io.BytesIO(ingredient.file))
            builder.sign(self._signer, media_type, io.BytesIO(data), signed)
        return signed.getvalue()


def manifest(making: Making, media_type: str) -> dict[str, Any]:
    """The manifest of a picture, as the library takes it."""
    assertions = [{"label": "c2pa.actions.v2", "data": _actions(making), "created": True}]
    if making.payload is not None:
        block = {"scope": {}, "value": f"{making.payload:016x}"}
        binding = {"alg": making.watermark, "blocks": [block]}
        assertions.append({"label": "c2pa.soft-binding", "data": binding, "created": True})
    if making.training is not None:
        entries = {use: {"use": making.training} for use in _TRAINING_USES}
        assertions.append({"label": "cawg.training-mining", "data": {"entries": entries}, "created": True})
    return {
        "claim_version": 2,
        "claim_generator_info": [{"name": "Licht", "version": __version__, "specVersion": SPECIFICATION}],
        "format": media_type,
        "assertions": assertions,
        "ingredients": [
            _ingredient(making, number, ingredient.media_type)
            for number, ingredient in enumerate(making.ingredients, start=1)
            if ingredient.file is None
        ],
    }


def _actions(making: Making) -> dict[str, Any]:
    agent = {"name": making.model} | ({"version": making.weights_hash} if making.weights_hash else {})
    labels = [_label(number) for number in range(1, len(making.ingredients) + 1)]
    actions: list[dict[str, Any]]
    if making.converted:
        opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": labels}}
        return {"actions": [opened, {"action": "c2pa.transcoded"}], "allActionsIncluded": True}
    made = {"digitalSourceType": making.source_type, "softwareAgent": agent}
    if making.ingredients and making.edits:
        edited = {"action": "c2pa.edited", **made}
        if labels[1:]:
            edited["parameters"] = {"ingredientIds": labels[1:]}
        actions = [{"action": "c2pa.opened", "parameters": {"ingredientIds": labels[:1]}}, edited]
    else:
        created = {"action": "c2pa.created", **made}
        if labels:
            created["parameters"] = {"ingredientIds": labels}
        actions = [created]
    if making.ranker is not None:
        chosen = {"licht.candidates": making.candidates, "licht.ranker": making.ranker}
        actions[-1]["parameters"] = {**actions[-1].get("parameters", {}), **chosen}
    if making.payload is not None:
        actions.append({"action": "c2pa.watermarked.bound"})
    return {"actions": actions, "allActionsIncluded": True}


def _ingredient(making: Making, number: int, media_type: str) -> dict[str, Any]:
    """File names stay out: they are private."""
    return {
        "title": f"image {number}",
        "format": media_type,
        "relationship": "parentOf" if number == 1 and making.edits else "inputTo",
        "label": _label(number),
        "instance_id": _label(number),
    }


def _label(number: int) -> str:
    return f"image_{number}"


def read(data: bytes, file_format: str, anchors_pem: bytes | None = None) -> Reading:
    """Read and verify the credentials of an untrusted file, without any network request."""
    report = report_of(data, file_format, anchors_pem)
    if report is None:
        return Reading("none")
    if "problem" in report:
        return Reading("invalid", (str(report["problem"]),))
    return _understood(report)


def report_of(data: bytes, file_format: str, anchors_pem: bytes | None = None) -> dict[str, Any] | None:
    """The library's own report; None if there is no manifest, {"problem": code} if it cannot be parsed."""
    import c2pa

    try:
        reader = c2pa.Reader.try_create(MEDIA_TYPES[file_format], io.BytesIO(data), context=_context(anchors_pem))
        if reader is None:
            return None
        with reader:
            report: dict[str, Any] = json.loads(reader.json())
            return report
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        # the library's text may quote the file; the kind is enough
        return {"problem": f"unreadable.{type(error).__name__.strip('_')}"}


def _understood(report: dict[str, Any]) -> Reading:
    """The parts of a report that people ask about; whatever is missing or odd in a stranger's manifest stays None."""
    active = report.get("manifests", {}).get(report.get("active_manifest"), {})
    failures = report.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    state = str(report.get("validation_state", "Invalid")).lower()
    actions, payload = [], None
    for assertion in active.get("assertions", []):
        content = assertion.get("data")
        if not isinstance(content, dict):
            continue
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            actions += [action for action in content.get("actions", []) if isinstance(action, dict)]
        if str(assertion.get("label", "")).startswith("c2pa.soft-binding"):
            payload = _payload_of(content)
    agents = [action["softwareAgent"] for action in actions if isinstance(action.get("softwareAgent"), dict)]
    generators = active.get("claim_generator_info") or [{}]
    return Reading(
        state=state,
        problems=tuple(dict.fromkeys(str(failure.get("code")) for failure in failures)),
        signer=active.get("signature_info", {}).get("issuer"),
        source_types=tuple(
            str(action["digitalSourceType"]).rpartition("/")[2] for action in actions if "digitalSourceType" in action
        ),
        generator=" ".join(str(generators[0][key]) for key in ("name", "version") if key in generators[0]) or None,
        model=str(agents[0]["name"]) if agents and "name" in agents[0] else None,
        watermark_payload=payload,
        ingredients=len(active.get("ingredients", [])),
    )


def _payload_of(binding: dict[str, Any]) -> int | None:
    try:
        return int(binding["blocks"][0]["value"], 16)
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _context(anchors_pem: bytes | None, stamp_url: str | None = None) -> "c2pa.Context":
    """Settings for one use of the library: offline, no thumbnails, and whom to trust."""
    import c2pa

    settings: dict[str, Any] = {key: dict(value) for key, value in _OFFLINE.items()}
    if stamp_url is not None:
        from urllib.parse import urlsplit

        settings["core"] = {"allowed_network_hosts": [urlsplit(stamp_url).hostname]}
    purposes = f"{EMAIL_PROTECTION}\n{DOCUMENT_SIGNING}\n{CLAIM_SIGNING}"
    settings["trust"] = {"trust_config": purposes}
    if anchors_pem is not None:
        settings["trust"]["user_anchors"] = anchors_pem.decode()
    return c2pa.Context.from_dict(settings)
