"""References whose credentials are broken, huge or of the wrong kind; and signatures that outlive their certificate."""

import datetime as dt
import http.server
import io
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from licht.core.errors import OutputFailed
from licht.safety import certificates, provenance
from licht.safety.certificates import Credentials
from licht.safety.provenance import Ingredient, Making, Signer, read
from tests.support.pictures import encoded, image

PLAIN = encoded(image(), "PNG")


@pytest.fixture(scope="module")
def carried(signer: Signer) -> bytes:
    return signer.sign(encoded(image(96, 64), "JPEG"), "JPEG", Making("nano", "sha256:1", payload=3))


def test_broken_references_never_cost_a_finished_picture(
    signer: Signer, credentials: Credentials, carried: bytes
) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        altered = bytearray(carried)
        for place in rng.integers(0, min(len(altered), 4000), 6):
            altered[int(place)] = int(rng.integers(256))
        making = Making(ingredients=(Ingredient(bytes(altered), "image/jpeg"), Ingredient(carried, "image/jpeg")))
        reading = read(signer.sign(PLAIN, "PNG", making), "PNG", credentials.root_pem)
        assert (reading.state, reading.ingredients) == ("trusted", 2)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"", "image/png"),
        (b"no picture" * 100, "image/png"),
        (encoded(image(), "JPEG"), "image/png"),
        (encoded(image(), "JPEG")[:300], "image/jpeg"),
        (PLAIN + b"<html><script>alert(1)</script>", "image/png"),
    ],
)
def test_references_of_the_wrong_kind_are_listed(
    signer: Signer, credentials: Credentials, data: bytes, media_type: str
) -> None:
    signed = signer.sign(PLAIN, "PNG", Making(ingredients=(Ingredient(data, media_type),)))
    reading = read(signed, "PNG", credentials.root_pem)
    assert (reading.state, reading.ingredients) == ("trusted", 1)
    assert b"<script>" not in signed


def test_a_reference_does_not_swell_the_result(
    signer: Signer, credentials: Credentials, carried: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_LARGEST_CARRIED_BYTES", 100_000)
    monkeypatch.setattr(provenance, "_LARGEST_MANIFEST_BYTES", 100_000)
    described = provenance.manifest(Making("nano"), "image/png")
    described["assertions"].append({"label": "org.example.bulk", "data": {"text": "x" * 300_000}})
    swollen = io.BytesIO()
    with c2pa.Builder(json.dumps(described), signer._context) as builder:
        builder.sign(signer._signer, "image/png", io.BytesIO(PLAIN), swollen)
    assert len(swollen.getvalue()) > 300_000
    making = Making(ingredients=(Ingredient(swollen.getvalue()), Ingredient(carried, "image/jpeg")))
    signed = signer.sign(PLAIN, "PNG", making)
    assert len(signed) - len(PLAIN) < 50_000
    assert read(signed, "PNG", credentials.root_pem).ingredients == 2
    report = provenance.report_of(signed, "PNG")
    assert report is not None
    assert len(report["manifests"]) == 2  # the sound one is carried on


def _authority(folder: Path) -> None:
    """A time-stamping certificate and its authority, for openssl."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)

    def builder(name: str, of: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stamp root")])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(of.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(of.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        )

    root = builder("stamp root", root_key).add_extension(x509.BasicConstraints(True, None), True)
    stamp = (
        builder("stamp", key)
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False, False), True)
        .add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(certificates.TIME_STAMPING)]), True)
    )
    for name, made in (("root.pem", root), ("stamp.pem", stamp)):
        (folder / name).write_bytes(made.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "stamp.key").write_bytes(key.private_bytes(*form))
    (folder / "serial").write_text("01\n")
    (folder / "ts.cnf").write_text(
        f"[tsa]\ndefault_tsa = one\n[one]\nserial = {folder}/serial\nsigner_cert = {folder}/stamp.pem\n"
        f"certs = {folder}/root.pem\nsigner_key = {folder}/stamp.key\nsigner_digest = sha256\n"
        "default_policy = 1.2.3.4.1\ndigests = sha256, sha384, sha512\naccuracy = secs:1\nordering = yes\n"
        "ess_cert_id_chain = no\ness_cert_id_alg = sha256\n"
    )


@pytest.fixture
def stamper(tmp_path: Path) -> Iterator[str]:
    """The address of an RFC 3161 server."""
    _authority(tmp_path)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (tmp_path / "query").write_bytes(self.rfile.read(int(self.headers["content-length"])))
            command = ["openssl", "ts", "-reply", "-config", str(tmp_path / "ts.cnf")]
            command += ["-queryfile", str(tmp_path / "query"), "-out", str(tmp_path / "reply")]
            subprocess.run(command, check=True, capture_output=True)
            self.send_response(200)
            self.send_header("content-type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write((tmp_path / "reply").read_bytes())

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def _loaded(folder: Path, stamper: str) -> Credentials:
    chain, key = folder / certificates.CHAIN_FILE, folder / certificates.KEY_FILE
    return certificates.load(chain, key, folder / certificates.ROOT_FILE, stamper)


def _signed_in_time(folder: Path, stamper: str) -> tuple[bytes, bytes, float]:
    """(file, root, when its certificate has expired); a busy machine is given longer to sign."""
    for life_s in (4, 20, 100):
        certificates.create(folder / str(life_s), leaf_days=life_s / 86400)
        end = time.monotonic() + life_s
        short = _loaded(folder / str(life_s), stamper)
        data = Signer(short).sign(PLAIN, "PNG", Making("nano"))
        if time.monotonic() < end - 1:
            return data, short.root_pem or b"", end
    raise AssertionError("signing took longer than 99 s")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the time-stamp server of this test is openssl's")
def test_a_time_stamped_signature_outlives_its_certificate(tmp_path: Path, stamper: str) -> None:
    data, root, end = _signed_in_time(tmp_path, stamper)
    anchors = root + (tmp_path / "root.pem").read_bytes()
    assert read(data, "PNG", anchors).state == "trusted"
    time.sleep(max(0.0, end + 2 - time.monotonic()))
    late = read(data, "PNG", anchors)
    assert (late.state, late.problems) == ("trusted", ())


def test_a_time_stamp_server_that_is_not_there_leaves_no_picture(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    certificates.create(folder)
    with pytest.raises(OutputFailed, match="cannot be signed; see whether the server of LICHT_TIME"):
        Signer(_loaded(folder, "http://127.0.0.1:9/")).sign(PLAIN, "PNG", Making("nano"))
