import datetime as dt
import stat
import sys
import types
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils
from cryptography.x509.oid import NameOID

from licht.core.errors import InvalidSettings, NotAvailable
from licht.safety import certificates
from licht.safety.certificates import (
    CHAIN_FILE,
    CLAIM_SIGNING,
    KEY_FILE,
    ROOT_FILE,
    Credentials,
    check,
    create,
    load,
    read_anchors,
    try_signer,
)
from licht.safety.policy import parse_policy, release
from licht.safety.provenance import read
from tests.support.pictures import picture

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORITY_KEY = ec.generate_private_key(ec.SECP256R1())


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem(key: object) -> bytes:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*form)  # type: ignore[attr-defined, no-any-return]


def leaf(
    key: object = KEY,
    purposes: tuple[str, ...] | None = (CLAIM_SIGNING,),
    usage: bool | None = True,
    identifier: bool = True,
    dates: tuple[dt.datetime, dt.datetime] = (NOW - DAY, NOW + DAY),
    self_signed: bool = False,
    authority: bool = False,
) -> bytes:
    public = key.public_key()  # type: ignore[attr-defined]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name("leaf"))
        .issuer_name(name("leaf" if self_signed else "root"))
        .public_key(public)
        .serial_number(1)
        .not_valid_before(dates[0])
        .not_valid_after(dates[1])
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
    )
    if usage is not None:
        flags = [usage, *[False] * 4, not usage, *[False] * 3]
        builder = builder.add_extension(x509.KeyUsage(*flags), critical=True)
    if identifier:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(AUTHORITY_KEY.public_key())
        builder = builder.add_extension(issuer, critical=False)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(p) for p in purposes]), False)
    return builder.sign(AUTHORITY_KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_what_is_made_is_accepted(tmp_path: Path) -> None:
    made = create(tmp_path / "keys", "Somebody")
    folder = tmp_path / "keys"
    assert load(folder / CHAIN_FILE, folder / KEY_FILE, folder / ROOT_FILE) == made
    assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    first = x509.load_pem_x509_certificates(made.chain_pem)[0]
    assert first.subject.rfc4514_string() == "CN=Somebody,O=Somebody"
    with pytest.raises(InvalidSettings, match="holds a signing key already"):
        create(folder)


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(Credentials(b"chain", b"secret", "es256", b"root"))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    create(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(InvalidSettings, match=r"can be read by others \(mode 640\); run chmod 600"):
        load(tmp_path / CHAIN_FILE, tmp_path / KEY_FILE)


def test_absent_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match=r"chain\.pem cannot be read .*licht provenance init"):
        load(tmp_path / CHAIN_FILE, tmp_path / KEY_FILE)
    with pytest.raises(NotAvailable, match="cannot be read"):
        certificates.require_private(tmp_path / KEY_FILE)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (leaf(dates=(NOW - 2 * DAY, NOW - DAY)), "expired on"),
        (leaf(dates=(NOW + DAY, NOW + 2 * DAY)), "is valid from"),
        (leaf(self_signed=True), "is self-signed"),
        (leaf(authority=True), "begins with an authority's certificate"),
        (leaf(usage=None), "lacks the key usage digitalSignature"),
        (leaf(usage=False), "lacks the key usage digitalSignature"),
        (leaf(identifier=False), "lacks the authority key identifier"),
        (leaf(purposes=None), "is for no purpose"),
        (leaf(purposes=("2.5.29.37.0",)), r"is for 2\.5\.29\.37\.0"),
        (leaf(purposes=("1.3.6.1.5.5.7.3.1",)), r"is for 1\.3\.6\.1\.5\.5\.7\.3\.1"),
        (leaf(purposes=("1.3.6.1.5.5.7.3.3",)), "its extended key usage must name"),
        (leaf(key=ec.generate_private_key(ec.SECP256K1())), "has a key that C2PA refuses"),
        (leaf() + leaf(), "is no chain"),
        (b"nothing", "cannot be read; both must be PEM"),
        (leaf(key=ec.generate_private_key(ec.SECP256R1())), "the key does not belong to the first certificate"),
    ],
)
def test_what_no_reader_would_accept_is_refused(chain: bytes, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        check(chain, pem(KEY), "chain.pem")


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (KEY, "es256"),
        (ec.generate_private_key(ec.SECP384R1()), "es384"),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519"),
        (rsa.generate_private_key(65537, 2048), "ps256"),
    ],
)
def test_algorithms(key: object, algorithm: str) -> None:
    assert check(leaf(key=key), pem(key), "chain.pem") == algorithm


class TestSigners:
    """Keys that stay where they are: a function signs."""

    @pytest.fixture
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, types.ModuleType]:
        credentials = create(tmp_path / "keys")
        key = serialization.load_pem_private_key(credentials.key_pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)

        def sign(data: bytes) -> bytes:
            r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")

        module = types.ModuleType("licht_test_signer")
        module.sign = sign  # type: ignore[attr-defined]
        module.broken = lambda data: b"x" * 64  # type: ignore[attr-defined]
        module.raising = lambda data: 1 / 0  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        (tmp_path / "keys" / KEY_FILE).unlink()
        return tmp_path / "keys", module

    def test_what_a_function_signs_is_trusted(
        self, made: tuple[Path, types.ModuleType], trust: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, _ = made
        monkeypatch.setenv("LICHT_SIGNING_CHAIN", str(folder / CHAIN_FILE))
        monkeypatch.setenv("LICHT_SIGNING_ROOT", str(folder / ROOT_FILE))
        monkeypatch.setenv("LICHT_SIGNER", "python:licht_test_signer:sign")
        policy = parse_policy("default")
        data = release(picture(128, 128), policy).data
        assert read(data, "PNG", policy.tools.anchors()).state == "trusted"
        monkeypatch.setenv("LICHT_SIGNING_KEY", "somewhere")
        with pytest.raises(InvalidSettings, match="LICHT_SIGNER signs for LICHT_SIGNING_CHAIN"):
            parse_policy("default")

    @pytest.mark.parametrize("name", ["broken", "raising"])
    def test_one_that_does_not_sign_is_named_at_the_start(
        self, made: tuple[Path, types.ModuleType], trust: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv("LICHT_SIGNING_CHAIN", str(made[0] / CHAIN_FILE))
        monkeypatch.setenv("LICHT_SIGNER", f"python:licht_test_signer:{name}")
        with pytest.raises(InvalidSettings, match="gives no es256 signature of the chain's key"):
            parse_policy("default")

    @pytest.mark.parametrize(
        "key",
        [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate(), KEY],
        ids=["p384", "ed25519", "p256"],
    )
    def test_signers_of_every_kind_are_tried(self, key: object) -> None:
        chain = leaf(key=key)
        algorithm = check(chain, None, "chain")

        def sign(data: bytes) -> bytes:
            if isinstance(key, ed25519.Ed25519PrivateKey):
                return key.sign(data)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            digest, size = (hashes.SHA384(), 48) if algorithm == "es384" else (hashes.SHA256(), 32)
            r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")

        try_signer(chain, algorithm, sign, "sign")
        with pytest.raises(InvalidSettings):
            try_signer(chain, algorithm, lambda data: sign(data + b"x"), "sign")


def test_anchors_are_certificates(tmp_path: Path) -> None:
    create(tmp_path / "keys")
    assert read_anchors(tmp_path / "keys" / ROOT_FILE).startswith(b"-----BEGIN CERTIFICATE")
    (tmp_path / "other").write_text("nothing")
    for path in (tmp_path / "other", tmp_path / "absent", tmp_path):
        with pytest.raises(InvalidSettings, match="holds no certificates in PEM"):
            read_anchors(path)
