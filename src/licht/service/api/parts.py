"""What the routes share: one frozen object, opened when the application starts."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import Request

from licht.core.errors import NotAuthenticated
from licht.safety.policy import Policy, parse_policy
from licht.service import links
from licht.service.api.ending import Ending
from licht.service.api.open_bodies import OpenBodies
from licht.service.database.connect import Database
from licht.service.database.migrate import open_migrated
from licht.service.fetch import Fetcher, FetchLimits
from licht.service.gallery import Gallery
from licht.service.keys import Key, KeyStore
from licht.service.queue.changes import Changes
from licht.service.queue.forecast import Forecast
from licht.service.queue.looks import Looks
from licht.service.queue.previews import Previews
from licht.service.queue.records import QueueLimits
from licht.service.queue.register import Register
from licht.service.queue.store import JobStore
from licht.service.series import SeriesStore
from licht.service.settings import Settings, Tier
from licht.service.storage import Storage
from licht.service.telemetry import Telemetry, open_telemetry
from licht.service.uploads import Uploads
from licht.service.webhooks import Outbox

_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Parts:
    """Settings, stores and clients of one API process."""

    settings: Settings
    tiers: dict[str, Tier]
    database: Database
    store: JobStore
    keys: KeyStore
    storage: Storage
    register: Register
    looks: Looks
    changes: Changes
    outbox: Outbox
    previews: Previews
    gallery: Gallery
    uploads: Uploads
    series: SeriesStore
    forecast: Forecast
    fetcher: Fetcher
    policy: Policy
    link_secret: bytes
    clock: Callable[[], float]
    telemetry: Telemetry
    open_bodies: OpenBodies
    ending: Ending

    def result_link(self, base_url: str, job_id: str) -> str:
        """A fresh signed link to a job's picture."""
        expires = int(self.clock() + self.settings.links.ttl_s)
        return links.sign(self.link_secret, base_url, job_id, expires)


def queue_limits(settings: Settings) -> QueueLimits:
    """The settings that the queue needs."""
    queue = settings.queue
    return QueueLimits(
        lease_s=queue.lease_s,
        max_attempts=queue.max_attempts,
        max_deaths=queue.max_deaths,
        retry_delay_s=queue.retry_delay_s,
        priority_work=queue.priority_work,
        active_limit=settings.keys.active_limit,
    )


def open_looks(settings: Settings, database: Database, clock: Callable[[], float] = time.time) -> Looks:
    """The looks of the database, within the limits of the settings."""
    return Looks(database, settings.verify.wait_s, settings.queue.lease_s, clock)


def open_parts(settings: Settings, clock: Callable[[], float] = time.time) -> Parts:
    """Open everything; the database is migrated first. Raises `InvalidSettings`, `NotAvailable`."""
    database = open_migrated(settings.database_url)
    fetch, hooks = settings.fetch, settings.webhooks
    limits = FetchLimits(fetch.ports, fetch.allow_networks, fetch.deadline_s, fetch.max_bytes)
    secret = settings.links.secret
    return Parts(
        settings=settings,
        tiers=settings.effective_tiers(),
        database=database,
        store=JobStore(database, queue_limits(settings), clock),
        keys=KeyStore(database, clock),
        storage=Storage(settings.storage_url, settings.storage.endpoint_url),
        register=Register(database, clock),
        looks=open_looks(settings, database, clock),
        changes=Changes(database),
        previews=Previews(database),
        gallery=Gallery(database, clock),
        uploads=Uploads(database, clock),
        series=SeriesStore(database, clock),
        forecast=Forecast(database, queue_limits(settings)),
        outbox=Outbox(database, hooks.schedule_s, 2 * hooks.timeout_s + 10, clock),
        fetcher=Fetcher(limits),
        policy=parse_policy(settings.worker.policy),
        link_secret=secret.get_secret_value().encode() if secret is not None else links.secret_in(Path(settings.data)),
        clock=clock,
        telemetry=open_telemetry(settings.telemetry.endpoint, "api", settings.telemetry.sample),
        open_bodies=OpenBodies(settings.server.max_body_bytes, settings.server.open_bodies_bytes),
        ending=Ending(),
    )


def parts_of(request: Request) -> Parts:
    """The parts of the application that answers this request."""
    parts: Parts = request.app.state.parts
    return parts


def key_of(request: Request) -> Key:
    """The key of a request that has come through `licht.service.api.auth`."""
    key: Key | None = getattr(request.state, "key", None)
    if key is None:
        raise NotAuthenticated("Not authenticated")
    return key


def base_url_of(request: Request) -> str:
    """Scheme and host for the URLs in an answer: the public URL, else those that the client itself used."""
    server = parts_of(request).settings.server
    if server.public_url is not None:
        return server.public_url.rstrip("/")
    scheme, host = request.url.scheme, request.headers["host"]
    if request.client is not None and request.client.host in server.trusted_proxies:
        scheme = _first(request.headers.get("x-forwarded-proto")) or scheme
        host = _first(request.headers.get("x-forwarded-host")) or host
    return f"{scheme}://{host}"


def _first(text: str | None) -> str | None:
    return text.partition(",")[0].strip() if text is not None else None
