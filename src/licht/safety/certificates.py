"""The certificates that content credentials are signed with: made here for private use, or brought along.

The profile is C2PA's: version 3, a critical key usage with digitalSignature, both key identifiers, and the purposes
e-mail protection and C2PA claim signing, which together pass with and without a reader's own trust configuration.
"""

import datetime as dt
import itertools
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from licht.core.errors import InvalidSettings, NotAvailable

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

CHAIN_FILE: Final = "chain.pem"
KEY_FILE: Final = "signing.key"
ROOT_FILE: Final = "root.pem"
LEAF_DAYS: Final = 3650
"""Without a time-stamp a signature is invalid once its certificate expires: for private use, late."""
_AUTHORITY_DAYS: Final = 7300

EMAIL_PROTECTION: Final = "1.3.6.1.5.5.7.3.4"
DOCUMENT_SIGNING: Final = "1.3.6.1.5.5.7.3.36"
CLAIM_SIGNING: Final = "1.3.6.1.4.1.62558.2.1"
MICROSOFT_SIGNING: Final = "1.3.6.1.4.1.311.76.59.1.9"
TIME_STAMPING: Final = "1.3.6.1.5.5.7.3.8"
OCSP_SIGNING: Final = "1.3.6.1.5.5.7.3.9"
PURPOSES: Final = (EMAIL_PROTECTION, DOCUMENT_SIGNING, CLAIM_SIGNING, MICROSOFT_SIGNING)
"""What a leaf may be for; one of them is enough."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs: the chain from the leaf up, its private key, and the algorithm's name in C2PA."""

    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    algorithm: str
    root_pem: bytes | None = field(default=None, repr=False)
    time_stamp_url: str | None = None
    signing: Callable[[bytes], bytes] | None = field(default=None, repr=False)
    """Signs in the place of a key that is somewhere else; `key_pem` is empty then."""


def create(folder: Path, name: str = "Licht", leaf_days: float = LEAF_DAYS) -> Credentials:
    """Make a root, an intermediate and a leaf in `folder`; the root's key is forgotten. Raises `InvalidSettings`."""
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (folder / KEY_FILE).exists():
        raise InvalidSettings(f"{folder} holds a signing key already; choose another folder or remove it first")
    root_key, middle_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = _authority(f"{name} root", root_key, None, root_key, depth=1)
    middle = _authority(f"{name} intermediate", middle_key, root, root_key, depth=0)
    leaf = _leaf(name, leaf_key, middle, middle_key, leaf_days)
    credentials = Credentials(_pem(leaf) + _pem(middle), _key_pem(leaf_key), "es256", _pem(root))
    write_file(folder / ROOT_FILE, _pem(root), 0o644)
    write_file(folder / CHAIN_FILE, credentials.chain_pem, 0o644)
    write_file(folder / KEY_FILE, credentials.key_pem, 0o600)  # last: with it, the set is complete
    return credentials


def load(chain: Path, key: Path, root: Path | None = None, time_stamp_url: str | None = None) -> Credentials:
    """Read and check what signs, at the start rather than at the first picture.

    Raises `NotAvailable` for missing files, `InvalidSettings` for a key that others can read and for certificates that
    no reader would accept, each with what is wrong.
    """
    chain_pem, key_pem = _read(chain), _read(key)
    require_private(key)
    algorithm = check(chain_pem, key_pem, str(chain))
    return Credentials(chain_pem, key_pem, algorithm, _read(root) if root else None, time_stamp_url)


def load_for_signer(chain: Path, signer: str, root: Path | None, time_stamp_url: str | None) -> Credentials:
    """Credentials whose key stays where it is: `signer` names a function from bytes to a raw signature.

    One signature is made and checked at once. Raises `NotAvailable`, `InvalidSettings`.
    """
    from licht.safety.plugins import plugin

    chain_pem = _read(chain)
    algorithm = check(chain_pem, None, str(chain))
    function: Callable[[bytes], bytes] = plugin(signer, "LICHT_SIGNER")
    try_signer(chain_pem, algorithm, function, signer)
    return Credentials(chain_pem, b"", algorithm, _read(root) if root else None, time_stamp_url, function)


def try_signer(chain_pem: bytes, algorithm: str, function: Callable[[bytes], bytes], name: str) -> None:
    """Raise `InvalidSettings` unless what `function` signs can be verified with the chain's first certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

    key, message = x509.load_pem_x509_certificates(chain_pem)[0].public_key(), b"licht signs this to try its signer"
    digest = {"es384": hashes.SHA384(), "es512": hashes.SHA512()}.get(algorithm, hashes.SHA256())
    try:
        signature = function(message)
        if isinstance(key, ec.EllipticCurvePublicKey):
            half = len(signature) // 2
            pair = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            key.verify(utils.encode_dss_signature(*pair), message, ec.ECDSA(digest))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    except Exception as error:  # a stranger's function may raise anything
        raise InvalidSettings(
            f"LICHT_SIGNER {name} gives no {algorithm} signature of the chain's key ({type(error).__name__}); it must "
            "take bytes and return the raw signature (ECDSA: r and s one after the other)"
        ) from error


def check(chain_pem: bytes, key_pem: bytes | None, name: str) -> str:
    """The C2PA name of the algorithm, if the chain can sign. Raises `InvalidSettings` with the first thing wrong.

    Without a `key_pem`, whether a key belongs to the chain is left to `try_signer`.
    """
    from cryptography import x509

    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError as error:
        raise InvalidSettings(
            f"{name} or its key cannot be read; both must be PEM, the key without password"
        ) from error
    leaf = chain[0]
    algorithm = _algorithm(leaf, name)
    if key_pem is not None:
        _check_key(leaf, key_pem, name)
    _check_dates(leaf, name)
    if leaf.issuer == leaf.subject:
        raise InvalidSettings(f"{name} is self-signed, which no reader accepts; use `licht provenance init`")
    for lower, upper in itertools.pairwise(chain):
        try:
            lower.verify_directly_issued_by(upper)
        except Exception as error:  # three kinds, one meaning
            raise InvalidSettings(f"{name} is no chain: a certificate is not issued by the next one") from error
    _check_extensions(leaf, name)
    return algorithm


def _check_key(leaf: "x509.Certificate", key_pem: bytes, name: str) -> None:
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise InvalidSettings(
            f"{name} or its key cannot be read; both must be PEM, the key without password"
        ) from error
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if leaf.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise InvalidSettings(f"the key does not belong to the first certificate of {name}; the leaf must come first")


def _check_dates(leaf: "x509.Certificate", name: str) -> None:
    now = dt.datetime.now(dt.UTC)
    if leaf.not_valid_after_utc < now:
        raise InvalidSettings(f"{name} expired on {leaf.not_valid_after_utc:%Y-%m-%d}; renew it")
    if leaf.not_valid_before_utc > now:
        raise InvalidSettings(f"{name} is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; check the clock")


def _check_extensions(leaf: "x509.Certificate", name: str) -> None:
    from cryptography import x509

    def extension(kind: type) -> "x509.Extension[x509.ExtensionType] | None":
        try:
            return leaf.extensions.get_extension_for_class(kind)
        except x509.ExtensionNotFound:
            return None

    basic = extension(x509.BasicConstraints)
    if basic is not None and basic.value.ca:  # type: ignore[attr-defined]
        raise InvalidSettings(f"{name} begins with an authority's certificate; a leaf (CA false) must come first")
    usage = extension(x509.KeyUsage)
    if usage is None or not usage.value.digital_signature:  # type: ignore[attr-defined]
        raise InvalidSettings(f"{name} lacks the key usage digitalSignature; have it issued for signing")
    if extension(x509.AuthorityKeyIdentifier) is None:
        raise InvalidSettings(f"{name} lacks the authority key identifier; have it issued with one")
    purposes = extension(x509.ExtendedKeyUsage)
    named = {purpose.dotted_string for purpose in purposes.value} if purposes is not None else set()  # type: ignore[attr-defined]
    if not named & set(PURPOSES) or named & {"2.5.29.37.0", TIME_STAMPING, OCSP_SIGNING}:
        raise InvalidSettings(
            f"{name} is for {', '.join(sorted(named)) or 'no purpose'}; its extended key usage must name "
            f"emailProtection ({EMAIL_PROTECTION}) or C2PA claim signing ({CLAIM_SIGNING}), and not any purpose"
        )


def _algorithm(leaf: "x509.Certificate", name: str) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    key = leaf.public_key()
    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in curves:
        return curves[key.curve.name]
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return "ps256"
    raise InvalidSettings(
        f"{name} has a key that C2PA refuses; use ECDSA P-256 to P-521, Ed25519 or RSA from 2048 bits"
    )


def _authority(
    name: str,
    key: "ec.EllipticCurvePrivateKey",
    issuer: "x509.Certificate | None",
    issuer_key: "ec.EllipticCurvePrivateKey",
    depth: int,
) -> "x509.Certificate":
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    builder = _builder(name, key, issuer, issuer_key, _AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
    builder = builder.add_extension(_usage(signing=False), critical=True)
    return builder.sign(issuer_key, hashes.SHA256())


def _leaf(
    name: str,
    key: "ec.EllipticCurvePrivateKey",
    issuer: "x509.Certificate",
    issuer_key: "ec.EllipticCurvePrivateKey",
    days: float,
) -> "x509.Certificate":
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    purposes = [x509.ObjectIdentifier(EMAIL_PROTECTION), x509.ObjectIdentifier(CLAIM_SIGNING)]
    builder = _builder(name, key, issuer, issuer_key, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signing=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _builder(
    name: str,
    key: "ec.EllipticCurvePrivateKey",
    issuer: "x509.Certificate | None",
    issuer_key: "ec.EllipticCurvePrivateKey",
    days: float,
) -> "x509.CertificateBuilder":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _usage(signing: bool) -> "x509.KeyUsage":
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=signing,
        content_commitment=signing,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signing,
        crl_sign=not signing,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: "x509.Certificate") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: "ec.EllipticCurvePrivateKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file that has its mode from the first byte on."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotAvailable(f"{path} cannot be read ({error.strerror}); run `licht provenance init`") from error


def read_anchors(path: Path) -> bytes:
    """Certificates that somebody trusts, PEM. Raises `InvalidSettings` for anything else."""
    from cryptography import x509

    try:
        data = path.read_bytes()
        x509.load_pem_x509_certificates(data)
    except (OSError, ValueError) as error:
        raise InvalidSettings(
            f"{path} holds no certificates in PEM; name a file such as root.pem", field="root"
        ) from error
    return data


def require_private(path: Path) -> None:
    """Raise `InvalidSettings` if anyone but the owner may read a key, `NotAvailable` if it is not there."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise NotAvailable(f"{path} cannot be read ({error.strerror}); run `licht provenance init`") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidSettings(f"{path} can be read by others (mode {stat.S_IMODE(mode):o}); run chmod 600 on it")
