import http.server
import io
import json
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import c2pa
import encypher_c2pa
import numpy as np
import pytest
from PIL import Image

from licht.core.errors import InvalidSettings, OutputFailed
from licht.safety import certificates, provenance
from licht.safety.certificates import Credentials
from licht.safety.provenance import CREATED_SOURCE, EDITED_SOURCE, Ingredient, Making, Signer, read
from tests.safety import rubric
from tests.support.pictures import encoded, image

FORMATS = ("PNG", "JPEG", "WEBP")
CREATED = Making("FLUX.2 [klein] 4B", "sha256:00", payload=0x1234, training="notAllowed")
PLAIN_REFERENCE = Ingredient(encoded(image(80, 64), "JPEG"), "image/jpeg")


@pytest.fixture(scope="module")
def signed_reference(signer: Signer) -> Ingredient:
    return Ingredient(signer.sign(encoded(image(96, 64), "PNG"), "PNG", CREATED), "image/png")


@pytest.fixture(params=["created", "edited", "created from references"])
def making(request: pytest.FixtureRequest, signed_reference: Ingredient) -> Making:
    if request.param == "created":
        return CREATED
    made = replace(CREATED, ingredients=(signed_reference, PLAIN_REFERENCE, Ingredient()))
    return made if request.param == "edited" else replace(made, edits=False)


def parsed(data: bytes, file_format: str, root: bytes | None) -> dict[str, object]:
    settings = {"trust": {"user_anchors": root.decode()}} if root else {}
    with c2pa.Reader(
        provenance.MEDIA_TYPES[file_format], io.BytesIO(data), context=c2pa.Context.from_dict(settings)
    ) as reader:
        report: dict[str, object] = json.loads(reader.crjson())
        return report


def test_the_rubric_has_31_traits() -> None:
    assert len(rubric.TRAITS) == 31


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_trait_holds(signer: Signer, credentials: Credentials, making: Making, file_format: str) -> None:
    data = signer.sign(encoded(image(), file_format), file_format, making)
    report = parsed(data, file_format, credentials.root_pem)
    assert {name: broken for name, trait in rubric.TRAITS.items() if (broken := trait(report))} == {}
    named = [action["action"] for action in rubric.actions(report)]
    edited = bool(making.ingredients) and making.edits
    assert named == (
        ["c2pa.opened", "c2pa.edited", "c2pa.watermarked.bound"]
        if edited
        else ["c2pa.created", "c2pa.watermarked.bound"]
    )
    relations = sorted(ingredient["relationship"] for ingredient in rubric.ingredients(report))
    assert relations == (["inputTo"] * 2 + ["parentOf"] if edited else ["inputTo"] * len(making.ingredients))


@pytest.mark.parametrize(
    ("trait", "change"),
    [
        ("inception comes first", lambda m: m["assertions"]["c2pa.actions.v2"]["actions"].reverse()),
        (
            "created has a source type",
            lambda m: m["assertions"]["c2pa.actions.v2"]["actions"][0].pop("digitalSourceType"),
        ),
        ("only known actions", lambda m: m["assertions"]["c2pa.actions.v2"]["actions"][0].update(action="c2pa.made")),
        ("all actions included is said", lambda m: m["assertions"]["c2pa.actions.v2"].pop("allActionsIncluded")),
        ("manifest URN", lambda m: m.update(label="urn:uuid:1")),
        ("no deprecated assertions", lambda m: m["assertions"].update({"c2pa.actions": {}})),
        ("hashes have no url", lambda m: m["assertions"]["c2pa.hash.data"].update(url="x")),
    ],
)
def test_a_broken_trait_is_seen(signer: Signer, trait: str, change: object) -> None:
    report = parsed(signer.sign(encoded(image(), "PNG"), "PNG", CREATED), "PNG", None)
    assert rubric.TRAITS[trait](report) == []
    change(rubric.active(report))  # type: ignore[operator]
    assert rubric.TRAITS[trait](report) != []


@pytest.mark.parametrize("file_format", FORMATS)
def test_pixels_stay_and_everything_is_read_back(
    signer: Signer, credentials: Credentials, making: Making, file_format: str
) -> None:
    before = encoded(image(), file_format)
    data = signer.sign(before, file_format, making)
    assert Image.open(io.BytesIO(data)).tobytes() == Image.open(io.BytesIO(before)).tobytes()
    reading = read(data, file_format, credentials.root_pem)
    assert (reading.state, reading.problems, reading.signer) == ("trusted", (), "Licht")
    assert (reading.model, reading.watermark_payload) == (making.model, making.payload)
    assert reading.ingredients == len(making.ingredients)
    assert reading.source_types == (making.source_type.rpartition("/")[2],)
    assert read(data, file_format).state == "valid"


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_second_reader_agrees(signer: Signer, credentials: Credentials, making: Making, file_format: str) -> None:
    assert credentials.root_pem is not None
    data = signer.sign(encoded(image(), file_format), file_format, making)
    report = encypher_c2pa.verify(
        data,
        provenance.MEDIA_TYPES[file_format],
        trust_pem=credentials.root_pem.decode(),
        no_default_trust=True,
        telemetry=False,
        online=False,
    )
    assert (report["validation_state"], report["hard_binding"]) == ("Trusted", "match")
    assert report["validation_results"]["failure"] == []
    altered = bytearray(data)
    altered[-3 if file_format == "JPEG" else -30] ^= 0x55
    later = encypher_c2pa.verify(bytes(altered), provenance.MEDIA_TYPES[file_format], telemetry=False, online=False)
    assert later["validation_state"] != "Trusted"


def test_nothing_private_is_in_the_file(signer: Signer) -> None:
    secret = Ingredient(encoded(image(512, 512), "PNG"), "image/png")
    data = signer.sign(encoded(image(), "PNG"), "PNG", replace(CREATED, ingredients=(secret, secret)))
    assert b"thumbnail" not in data
    assert len(data) - len(encoded(image(), "PNG")) < 8192


def test_the_manifest_of_a_reference_is_carried_on(signer: Signer, signed_reference: Ingredient) -> None:
    data = signer.sign(encoded(image(), "PNG"), "PNG", Making(ingredients=(signed_reference,)))
    report = provenance.report_of(data, "PNG")
    assert report is not None
    assert len(report["manifests"]) == 2


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_altered_image_byte_is_detected(signer: Signer, file_format: str) -> None:
    data = bytearray(signer.sign(encoded(image(160, 160), file_format), file_format, CREATED))
    start = {"PNG": b"IDAT", "JPEG": b"\xff\xda", "WEBP": b"VP8 "}[file_format]
    first = bytes(data).index(start) + 8
    last = len(data) - (16 if file_format == "PNG" else 2)
    if file_format == "WEBP":
        last = first + int.from_bytes(data[first - 4 : first], "little")
    places = range(first, last, max(1, (last - first) // 60))
    assert len(places) >= 50
    for place in places:
        altered = bytearray(data)
        altered[place] ^= 0x55
        assert read(bytes(altered), file_format).state == "invalid", place


@pytest.mark.parametrize("file_format", FORMATS)
def test_added_and_missing_bytes_are_detected(signer: Signer, file_format: str) -> None:
    data = signer.sign(encoded(image(), file_format), file_format, CREATED)
    assert read(data + b"x", file_format).state == "invalid"
    assert read(data[:-20], file_format).state != "valid"


@pytest.mark.parametrize("file_format", FORMATS)
def test_other_pixels_under_the_same_manifest_are_detected(signer: Signer, file_format: str) -> None:
    """A repacked picture loses its credentials rather than keeping false ones."""
    data = signer.sign(encoded(image(), file_format), file_format, CREATED)
    assert read(encoded(Image.open(io.BytesIO(data)).convert("RGB"), file_format), file_format).state == "none"


def test_broken_manifests_end_in_a_reading(signer: Signer) -> None:
    data = signer.sign(encoded(image(), "JPEG"), "JPEG", CREATED)
    rng = np.random.default_rng(0)
    for _ in range(200):
        altered = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            altered[int(place)] = int(rng.integers(256))
        assert read(bytes(altered), "JPEG").state in ("none", "valid", "invalid")
    assert read(b"", "PNG").state in ("none", "invalid")
    assert read(b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "PNG").state in ("none", "invalid")


def _trusted_in_time(folder: Path) -> tuple[bytes, bytes | None, float]:
    """(file, root, when its certificate has expired); a busy machine is given longer to sign and to read."""
    for life_s in (2, 10, 50):
        short = certificates.create(folder / str(life_s), leaf_days=life_s / 86400)
        end = time.monotonic() + life_s
        data = Signer(short).sign(encoded(image(), "PNG"), "PNG", CREATED)
        if read(data, "PNG", short.root_pem).state == "trusted":
            return data, short.root_pem, end
    raise AssertionError("no signature was trusted while its certificate lived")


def test_a_signature_expires_with_its_certificate(tmp_path: Path) -> None:
    data, root, end = _trusted_in_time(tmp_path)
    time.sleep(max(0.0, end + 2 - time.monotonic()))  # dates have whole seconds
    late = read(data, "PNG", root)
    assert (late.state, "signingCredential.expired" in late.problems) == ("invalid", True)


@pytest.fixture
def hits() -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(404)
            self.end_headers()

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/manifest.c2pa", seen
    server.shutdown()
    server.server_close()


def _png_with_remote_manifest(address: str) -> bytes:
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{address}"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    body = b"iTXt" + b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode()
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    plain = encoded(image(), "PNG")
    return plain[:33] + chunk + plain[33:]


def test_reading_and_carrying_on_make_no_request(signer: Signer, hits: tuple[str, list[str]]) -> None:
    address, seen = hits
    crafted = _png_with_remote_manifest(address)
    # the default settings do fetch, so the file is a real attack
    with pytest.raises(c2pa.C2paError):
        c2pa.Reader("image/png", io.BytesIO(crafted))
    assert seen
    seen.clear()
    assert read(crafted, "PNG").state in ("none", "invalid")
    assert signer.sign(encoded(image(), "PNG"), "PNG", Making(ingredients=(Ingredient(crafted, "image/png"),)))
    assert seen == []


def test_the_source_type_is_in_the_metadata_too() -> None:
    assert CREATED_SOURCE.encode() in provenance.metadata(CREATED)
    assert EDITED_SOURCE.encode() in provenance.metadata(Making(ingredients=(PLAIN_REFERENCE,)))


def test_credentials_that_cannot_sign_leave_no_picture(credentials: Credentials) -> None:
    with pytest.raises((InvalidSettings, OutputFailed)):
        Signer(replace(credentials, chain_pem=b"nothing")).sign(encoded(image(), "PNG"), "PNG", CREATED)


def test_large_weights_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(bytes(range(256)) * 4096)
    whole = provenance.weights_hash([path])
    monkeypatch.setattr(provenance, "_HASHED_WHOLE_BYTES", 1000)
    sampled = provenance.weights_hash([path])
    assert (whole.partition(":")[0], sampled.partition(":")[0]) == ("sha256", "sampled-sha256")
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert provenance.weights_hash([path]) != sampled
