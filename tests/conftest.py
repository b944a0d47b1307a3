"""What holds for every test: no network, no trace in the home folder, no setting of whoever runs it."""

import ipaddress
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# Models make single examples slow, and a run in continuous integration must be repeatable.
settings.register_profile("licht", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("licht")


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before a test module imports a library that reads it only once; processes inherit it."""
    home = tempfile.mkdtemp(prefix="licht-tests-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    for name in [name for name in os.environ if name.startswith("LICHT_")]:
        del os.environ[name]
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "HF_HOME"):
        os.environ[name] = os.path.join(home, name.lower())  # noqa: PTH118 - the environment holds text
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the browser last: while Playwright is there an event loop runs, and nobody else may start one."""
    items.sort(key=lambda item: item.path.parent.name == "studio")


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Only this machine can be reached: a test that needs another one would pass or fail by luck."""
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:  # noqa: ANN401 - as the socket module has it
        if isinstance(address, tuple):
            _require_local(address[0])
        connect(self, address)

    def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the socket module has it
        _require_local(host)
        return resolve(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket, "getaddrinfo", guarded_resolve)
        yield


def _require_local(host: str | bytes | None) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in {None, "", "localhost"}:
        return
    try:
        address = ipaddress.ip_address(str(name).partition("%")[0])
        local = address.is_loopback or address.is_unspecified  # a server may listen on every address
    except ValueError:
        local = False
    if not local:
        raise OSError(f"a test tried to reach {name}; tests use only this machine")
