import _socket
import asyncio
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

import pytest

from licht.core.errors import InvalidImage, InvalidRequest, LichtError
from licht.service.fetch import Blocked, Fetcher, FetchLimits, Guard, check_url, is_public, resolve_name

T = TypeVar("T")

PRIVATE = [
    "127.0.0.1", "127.1.2.3", "0.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:0:0:0:0:80ff:fffe",
    "fe80::1", "fe80::5efe:7f00:1", "fe80::200:5efe:7f00:1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
    "5f00::1", "100::1", "2001:db8::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::808:808", "2002:808:808::1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


class Server(ThreadingHTTPServer):
    """Counts who comes."""

    hits = 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.hits += 1
        if self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", self.path.partition("to=")[2])
            self.end_headers()
        elif self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(50):
                self.wfile.write(b"x")
                threading.Event().wait(0.1)
        else:
            self.send_response(404 if self.path == "/missing" else 200)
            self.end_headers()
            self.wfile.write(b"x" * 1000 if self.path == "/large" else b"picture")

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def run(call: Callable[[Fetcher], Awaitable[T]], fetcher: Fetcher) -> T:
    async def main() -> T:
        try:
            return await call(fetcher)
        finally:
            await fetcher.aclose()

    return asyncio.run(main())


def get(url: str, fetcher: Fetcher) -> bytes:
    return run(lambda client: client.picture(url), fetcher)


def open_to(server: Server) -> FetchLimits:
    return FetchLimits((server.server_port,), ("127.0.0.1/32",), deadline_s=0.5, max_bytes=100)


HOSTILE = [
    "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://LOCALHOST:{port}/", "http://localhost.:{port}/",
    "http://2130706433:{port}/", "http://0x7f000001:{port}/", "http://0177.0.0.1:{port}/", "http://127.1:{port}/",
    "http://0:{port}/", "http://127。0。0。1:{port}/", "http://①②⑦.⓪.⓪.①:{port}/", "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://[::1]:{port}/", "http://[::]:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/", "http://[2002:7f00:1::]:{port}/", "http://0.0.0.0:{port}/",
    "http://%6cocalhost:{port}/", "http://127.0.0%2e1:{port}/", "http://allowed\\@127.0.0.1:{port}/",
    "http://allowed@127.0.0.1:{port}/", "http://127.0.0.1:{port}#@allowed/", "http://allowed:80@127.0.0.1:{port}/",
    "http://127.0.0.1 :{port}/", "http:///127.0.0.1:{port}/", "http:127.0.0.1:{port}/", "http://127.0.0.1:{port}\t/",
    "file:///etc/passwd", "gopher://127.0.0.1:{port}/", "ftp://127.0.0.1/", "http://", "//127.0.0.1:{port}/", "",
    "unix:///tmp/x", "http://[fe80::1%25lo]:{port}/", "http://169.254.169.254/latest/meta-data/",
]  # fmt: skip


async def as_the_system_does(host: str, port: int) -> Sequence[str]:
    """Numbers in all their spellings as the C library reads them; the tests' own guard lets only names through."""
    try:
        found = _socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except OSError:
        return await resolve_name(host, port)
    return [str(each[4][0]) for each in found]


def test_the_system_reads_numbers_in_many_ways() -> None:
    for host in ("2130706433", "0x7f000001", "0177.0.0.1", "127.1"):
        assert asyncio.run(as_the_system_does(host, 80)) == ["127.0.0.1"]


@pytest.mark.parametrize("url", HOSTILE)
def test_hostile_urls_reach_nothing(server: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
    limits = FetchLimits(ports=(80, server.server_port), deadline_s=2)
    with pytest.raises(LichtError) as caught:
        get(url.format(port=server.server_port), Fetcher(limits, as_the_system_does))
    assert server.hits == 0
    assert "127.0.0" not in caught.value.message
    poster = Fetcher(limits, as_the_system_does)
    assert run(lambda client: client.post(url.format(port=server.server_port), b"", {}, 2), poster) is None
    assert server.hits == 0


def test_what_may_be_reached_is_fetched(server: Server) -> None:
    assert get(f"http://127.0.0.1:{server.server_port}/", Fetcher(open_to(server))) == b"picture"


def answering(*answers: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that gives one answer after another."""
    left = list(answers)

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return left.pop(0)

    return resolve


def test_a_name_with_one_private_address_is_refused(server: Server) -> None:
    for answer in (["8.8.8.8", "127.0.0.1"], ["127.0.0.1"], [], ["nonsense"], ["fe80::1%lo"]):
        limits = FetchLimits((server.server_port,))
        with pytest.raises(InvalidImage):
            get(f"http://mixed.example:{server.server_port}/", Fetcher(limits, answering(answer)))
    assert server.hits == 0


def test_the_address_that_was_judged_is_the_one_that_is_connected(server: Server) -> None:
    """A name that answers differently the second time is not asked a second time."""
    fetcher = Fetcher(open_to(server), answering(["127.0.0.1"], ["10.0.0.1"]))
    assert get(f"http://rebinding.example:{server.server_port}/", fetcher) == b"picture"


def test_ports_are_limited_too(server: Server) -> None:
    guard = Guard(FetchLimits(ports=(80,)), answering(["8.8.8.8"]))
    with pytest.raises(Blocked):
        asyncio.run(guard.connect_tcp("public.example", 22))
    with pytest.raises(Blocked):
        asyncio.run(guard.connect_unix_socket("/run/x"))


def test_redirects_are_judged_again(server: Server) -> None:
    base = f"http://127.0.0.1:{server.server_port}"
    assert get(f"{base}/redirect?to=/", Fetcher(open_to(server))) == b"picture"
    for target in ("http://127.0.0.2:1/", "file:///etc/passwd", "http://u@127.0.0.1/", "/loop"):
        with pytest.raises(LichtError):
            get(f"{base}/redirect?to={target}", Fetcher(open_to(server), counting_resolver()))


def counting_resolver() -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def resolve(host: str, _port: int) -> Sequence[str]:
        return [host]

    return resolve


def test_too_much_too_slow_and_nothing(server: Server) -> None:
    for path in ("/large", "/slow", "/missing"):
        with pytest.raises(InvalidImage):
            get(f"http://127.0.0.1:{server.server_port}{path}", Fetcher(open_to(server)))


def test_a_post_tells_the_status_and_follows_nothing(server: Server) -> None:
    base = f"http://127.0.0.1:{server.server_port}"
    for path, status in (("/", 200), ("/missing", 404), (f"/redirect?to={base}/", 302)):
        answer = run(lambda client, path=path: client.post(base + path, b"{}", {}, 5), Fetcher(open_to(server)))  # type: ignore[misc]
        assert answer is not None
        assert answer.status == status
    assert server.hits == 3
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    nobody = Fetcher(FetchLimits((port,), ("127.0.0.1/32",)))
    assert run(lambda client: client.post(f"http://127.0.0.1:{port}/", b"", {}, 5), nobody) is None


def test_urls_are_plain() -> None:
    check_url("https://example.org:8443/a?b=c")
    with pytest.raises(InvalidRequest):
        check_url("http://example.org\\@127.0.0.1/")
