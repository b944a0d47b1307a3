import datetime as dt
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from licht.core.errors import InvalidSettings, NotAvailable
from licht.safety import certificates
from licht.safety.certificates import CHAIN_FILE, CLAIM_SIGNING, KEY_FILE, ROOT_FILE, Credentials, check, create, load

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
