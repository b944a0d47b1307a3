"""What can be found out about one picture file: for `licht verify` and the service alike."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licht.safety import provenance
from licht.safety.hashes import pdq
from licht.safety.images import file_format_of, open_picture, read_file

if TYPE_CHECKING:
    from licht.safety.marks import Mark
    from licht.safety.registry import Registry


def examine(
    source: Path | bytes,
    watermark: "Mark | None",
    anchors_pem: bytes | None,
    name: str = "the picture",
    registry: "Registry | None" = None,
) -> dict[str, Any]:
    """`{"c2pa": ..., "watermark": ..., "pdq": ..., "agrees": ..., "known": ...}`; raises `InvalidImage`.

    `agrees` says whether the credentials name the payload that the picture holds; None where one of them is missing.
    `known` is the released picture that looks like this one: `{"at": seconds, "payload": hex or None, "distance": bits}`.
    """
    label = str(source) if isinstance(source, Path) else name
    data = read_file(source, label) if isinstance(source, Path) else source
    picture = open_picture(data, label)
    file_format = file_format_of(data)
    reading = provenance.read(data, file_format, anchors_pem) if file_format else provenance.Reading("none")
    mark: dict[str, Any] | None = None
    agrees = None
    if watermark is not None:
        found = watermark.detect(picture)
        payload = found.payload if found.detected else None
        mark = {
            "detected": found.detected,
            "p": found.p,
            "payload": f"{payload:016x}" if payload is not None else None,
            "scale": round(found.scale, 4) if found.detected else None,
            "rotation_deg": round(found.rotation_deg, 2) if found.detected else None,
            "flipped": found.flipped if found.detected else None,
        }
        if payload is not None and reading.watermark_payload is not None:
            agrees = payload == reading.watermark_payload
    described = asdict(reading)
    if reading.watermark_payload is not None:
        described["watermark_payload"] = f"{reading.watermark_payload:016x}"
    record = registry.find(picture) if registry is not None else None
    known = record.to_dict() if record is not None else None
    return {"c2pa": described, "watermark": mark, "pdq": pdq(picture), "agrees": agrees, "known": known}
