from pathlib import Path

import pytest

from licht.safety import certificates
from licht.safety.certificates import Credentials
from licht.safety.provenance import Signer
from licht.safety.watermark import Watermark


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return certificates.create(tmp_path_factory.mktemp("trust") / "keys")


@pytest.fixture(scope="session")
def signer(credentials: Credentials) -> Signer:
    return Signer(credentials)


@pytest.fixture(scope="session")
def mark() -> Watermark:
    return Watermark(bytes(range(32)))


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for keys."""
    monkeypatch.setenv("LICHT_TRUST", str(tmp_path / "trust"))
    return tmp_path / "trust"
