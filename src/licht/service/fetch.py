"""Connecting to addresses that strangers chose. The connected address is judged, never the text of a URL.

Every name is resolved once; all its addresses must be public; the connection goes to one of those addresses, so a name
that changes its mind in between gains nothing. Proxies of the environment are not used, redirects are followed by
nobody but this file, and nothing of what went wrong is told to the caller.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import httpcore
import httpx

from licht.core.errors import InvalidImage, InvalidRequest, LichtError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]

_REDIRECTS: Final = 3
# What `ipaddress` calls global, and is not: protocol assignments and the retired 6to4 relays.
_NOT_PUBLIC: Final = tuple(ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "5f00::/16"))
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL: Final = ipaddress.ip_network("64:ff9b:1::/48")
_COMPATIBLE: Final = ipaddress.ip_network("::/96")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What may be connected to, and for how long. `allow_networks` are reached although they are not public."""

    ports: tuple[int, ...] = (80, 443, 8080, 8443)
    allow_networks: tuple[str, ...] = ()
    deadline_s: float = 20.0
    max_bytes: int = 20 * 2**20


class Blocked(LichtError):
    """An address that is not to be reached from here."""

    code = "blocked_address"


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """All addresses of a host, as the system sees them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet, whatever it is wrapped in."""
    inner = _unwrap(address)
    if inner is not None:
        return is_public(inner)
    local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    special = address.is_reserved or address.is_multicast or address.is_unspecified or address.is_loopback or local
    return address.is_global and not special and not any(address in network for network in _NOT_PUBLIC)


def _unwrap(address: Address) -> Address | None:
    """The IPv4 address that an IPv6 address leads to: mapped, compatible, 6to4, Teredo, ISATAP, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP or any(
        address in network for network in (_NAT64, _NAT64_LOCAL, _COMPATIBLE)
    ):
        return low
    return None


class Guard(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses only."""

    def __init__(self, limits: FetchLimits, resolve: Resolve = resolve_name) -> None:
        """Allow what `limits` allow; `resolve` is replaced by tests."""
        self._inner = httpcore.AnyIOBackend()
        self._ports = limits.ports
        self._networks = tuple(ipaddress.ip_network(text) for text in limits.allow_networks)
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve once, judge every address, connect to the first. Raises `Blocked`."""
        try:
            texts = await self._resolve(host, port)
            addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in texts]
        except (OSError, UnicodeError, ValueError) as error:
            raise Blocked("the host has no usable address") from error
        allowed = [self._allowed(address, port) for address in addresses]
        if not addresses or not all(allowed):
            raise Blocked("the address is not reachable from here")
        return await self._inner.connect_tcp(str(addresses[0]), port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        del path, timeout, socket_options
        raise Blocked("sockets of this machine are not reachable from here")

    async def sleep(self, seconds: float) -> None:
        """For httpcore's own retries, which are off."""
        await self._inner.sleep(seconds)

    def _allowed(self, address: Address, port: int) -> bool:
        if any(address in network for network in self._networks):
            return True
        return port in self._ports and is_public(address)


class _Transport(httpx.AsyncBaseTransport):
    """httpx over a pool whose connections the guard opens."""

    def __init__(self, guard: Guard) -> None:
        self._pool = httpcore.AsyncConnectionPool(ssl_context=ssl.create_default_context(), network_backend=guard)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raw = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        answer = await self._pool.handle_async_request(raw)
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Stream(answer.stream), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - httpcore's union of streams
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody's server said."""

    status: int
    retry_after_s: float | None


class Fetcher:
    """The one HTTP client for addresses from outside. Close it with `aclose`."""

    def __init__(self, limits: FetchLimits, resolve: Resolve = resolve_name) -> None:
        """Keep to `limits`."""
        self._limits = limits
        self._client = httpx.AsyncClient(
            transport=_Transport(Guard(limits, resolve)), trust_env=False, follow_redirects=False, timeout=10.0
        )

    async def picture(self, url: str) -> bytes:
        """The bytes behind an image URL. Raises `InvalidImage`, with nothing in it that tells about this network."""
        check_url(url)
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                return await self._get(url)
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
        ) as error:
            raise InvalidImage("the picture could not be fetched from its URL; send it as base64") from error
        except (Blocked, TimeoutError, OSError) as error:
            raise InvalidImage("the picture could not be fetched from its URL; send it as base64") from error

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answer | None:
        """Deliver a body; None if nobody answered. Redirects are not followed. Raises nothing."""
        try:
            async with asyncio.timeout(timeout_s):
                check_url(url)
                request = self._client.build_request("POST", url, content=body, headers=dict(headers))
                response = await self._client.send(request, stream=True)
                # what they answer is of no interest, and may be endless
                await response.aclose()
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
        ):
            return None
        except (LichtError, TimeoutError, OSError):
            return None
        return Answer(response.status_code, _seconds(response.headers))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _get(self, url: str) -> bytes:
        for _ in range(_REDIRECTS + 1):
            async with self._client.stream("GET", url, headers={"Accept": "image/*"}) as response:
                if response.has_redirect_location:
                    url = str(response.url.join(response.headers["location"]))
                    check_url(url)
                    continue
                if response.status_code != httpx.codes.OK:
                    raise InvalidImage("the picture could not be fetched from its URL; send it as base64")
                return await self._limited(response)
        raise InvalidImage("the picture could not be fetched from its URL; send it as base64")

    async def _limited(self, response: httpx.Response) -> bytes:
        parts, total = [], 0
        async for part in response.aiter_bytes(65536):
            total += len(part)
            if total > self._limits.max_bytes:
                raise InvalidImage(
                    f"the picture at the URL has more than {self._limits.max_bytes:,} bytes; make it smaller"
                )
            parts.append(part)
        return b"".join(parts)


def check_url(url: str) -> None:
    """Raise `InvalidRequest` unless `url` is a plain http or https address. Where it leads is judged on connecting."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidRequest("the URL cannot be read; use an http or https address") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidRequest("the URL is neither http nor https; use such an address")
    if parsed.userinfo or "\\" in url or any(ord(character) <= 32 for character in url):
        raise InvalidRequest("the URL holds a user name, a backslash or blanks; use a plain address")


def _seconds(headers: httpx.Headers) -> float | None:
    """Retry-After in seconds; a date is not worth reading, the schedule goes on instead."""
    text = headers.get("retry-after")
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 7 else None
