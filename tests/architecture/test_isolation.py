"""The tests' own surroundings, as tests/conftest.py sets them."""

import os
import socket
import tempfile
from pathlib import Path

import pytest


def test_another_machine_cannot_be_reached() -> None:
    with socket.socket() as client, pytest.raises(OSError, match="a test tried to reach 192"):
        client.connect(("192.0.2.1", 80))
    with pytest.raises(OSError, match="a test tried to reach example"):
        socket.getaddrinfo("example.org", 80)


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        accepted.close()
        assert client.recv(1) == b""


def test_nothing_of_the_person_who_runs_the_tests_is_used() -> None:
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HF_HOME"):
        assert Path(tempfile.gettempdir()) in Path(os.environ[name]).parents
    assert not [name for name in os.environ if name.startswith("LICHT_")]
