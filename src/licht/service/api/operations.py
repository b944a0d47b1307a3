"""For whoever runs the service: alive, ready, metrics."""

import asyncio
from collections.abc import Iterator
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from licht.core.errors import NotAvailable
from licht.service.api.auth import Guarded, needs, open_to_all
from licht.service.api.parts import Parts, parts_of
from licht.service.keys import Scope
from licht.service.queue import tallies

_SILENT_BEATS: Final = 4
_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Measurements:
    """What this process measures itself, and what it reads from the rows when it is asked."""

    def __init__(self, parts: Parts) -> None:
        """A registry of its own: two applications in one process do not get in each other's way."""
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "licht_http_request_seconds",
            "Time to answer",
            ("method", "route"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._answers = Counter(
            "licht_http_responses", "Answers", ("method", "route", "status"), registry=self.registry
        )
        # memory, processor time and open files of this process
        ProcessCollector(registry=self.registry)
        self.registry.register(_Rows(parts))

    def observe(self, method: str, route: str, status: int, took_s: float) -> None:
        """Note one answer."""
        # methods come from outside, and could make endless series
        known = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH") else "other"
        self._seconds.labels(known, route).observe(took_s)
        self._answers.labels(known, route, str(status)).inc()


class _Rows(Collector):
    """Jobs, usage, webhooks and workers as the database has them, over all processes and restarts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def describe(self) -> list[Metric]:
        """Nothing at registration, so that the database is not asked then."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the rows."""
        parts = self._parts
        depth = parts.store.depth()
        jobs = GaugeMetricFamily("licht_jobs", "Jobs by state; ended ones until they are purged", labels=["state"])
        for state, count in depth.by_state.items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily("licht_oldest_queued_seconds", "How long the oldest job waits", depth.oldest_queued_s)
        yield GaugeMetricFamily("licht_dead_letters", "Jobs that were given up", depth.dead_letters)
        yield from _tallied(tallies.read(parts.database))
        events = GaugeMetricFamily("licht_webhooks", "Webhook events by state", labels=["state"])
        for state, count in parts.outbox.counts().items():
            events.add_metric([state], count)
        yield events
        workers = GaugeMetricFamily("licht_workers", "Workers by condition", labels=["condition"])
        rows = parts.register.list()
        conditions = [_condition(parts, row.heartbeat_at, row.ready_at) for row in rows]
        for condition in ("ready", "starting", "silent"):
            workers.add_metric([condition], conditions.count(condition))
        yield workers
        memory = GaugeMetricFamily("licht_worker_memory_bytes", "Resident memory of a worker", labels=["worker"])
        device = GaugeMetricFamily("licht_worker_device_memory_bytes", "Tensors on its device", labels=["worker"])
        for row in rows:
            for family, value in ((memory, row.memory_bytes), (device, row.device_memory_bytes)):
                if value is not None:
                    family.add_metric([row.id], value)
        yield from (memory, device)


_TALLIES: Final = {
    "licht_jobs_ended": "Jobs that have ended",
    "licht_queue_seconds": "Time that a job has waited",
    "licht_run_seconds": "Time that a job has run",
    "licht_stage_seconds": "Time spent in a stage, over all jobs",
    "licht_stages": "Jobs that went through a stage",
    "licht_steps": "Denoising steps of finished pictures",
    "licht_steps_per_second": "Denoising steps a second while denoising, by job",
    "licht_input_megapixels": "Megapixels taken in",
    "licht_output_megapixels": "Megapixels drawn",
    "licht_credits": "Credits charged",
    "licht_cache_hits": "Encoded prompts and pictures that were found",
    "licht_cache_misses": "Encoded prompts and pictures that had to be made",
}


def _tallied(series: list[tuple[str, dict[str, str], float]]) -> Iterator[Metric]:
    """The sums of the rows as counters and histograms; a series that nothing was added to yet is not there."""
    for name, help_text in _TALLIES.items():
        if name in tallies.HISTOGRAMS:
            yield _histogram(name, help_text, series)
            continue
        rows = [(labels, value) for found, labels, value in series if found == name]
        names = sorted(rows[0][0]) if rows else []
        family = CounterMetricFamily(name, help_text, labels=names)
        for labels, value in rows:
            family.add_metric([labels[each] for each in names], value)
        yield family


def _histogram(name: str, help_text: str, series: list[tuple[str, dict[str, str], float]]) -> Metric:
    sums = [(labels, value) for found, labels, value in series if found == name + tallies.SUM]
    names = sorted(sums[0][0]) if sums else []
    family = HistogramMetricFamily(name, help_text, labels=names)
    for labels, total in sums:
        own = {
            found_labels["le"]: value
            for found, found_labels, value in series
            if found == name + tallies.BUCKET and all(found_labels[each] == labels[each] for each in names)
        }
        buckets, count = [], 0.0
        for end in (*(str(end) for end in tallies.HISTOGRAMS[name]), tallies.REST):
            count += own.get(end, 0.0)
            buckets.append((end, count))
        family.add_metric([labels[each] for each in names], buckets, total)
    return family


def _condition(parts: Parts, heartbeat_at: float, ready_at: float | None) -> str:
    silent_s = parts.clock() - heartbeat_at
    if silent_s > _SILENT_BEATS * parts.settings.queue.heartbeat_s:
        return "silent"
    return "ready" if ready_at is not None else "starting"


def router() -> APIRouter:
    """Health and metrics."""
    made = APIRouter(route_class=Guarded, tags=["operations"])
    made.add_api_route("/livez", livez, methods=["GET"])
    made.add_api_route("/readyz", readyz, methods=["GET"])
    for path, endpoint in (("/livez", livez), ("/readyz", readyz)):
        made.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    made.add_api_route("/metrics", metrics, methods=["GET"], response_class=Response)
    return made


@open_to_all
async def livez() -> dict[str, str]:
    """This process answers. Nothing else is asked, so that a full queue is no reason to restart it."""
    return {"status": "alive"}


@open_to_all
def readyz(request: Request) -> JSONResponse:
    """Whether a picture can be drawn now: the database answers, and a worker has drawn its first one."""
    parts = parts_of(request)
    if parts.ending.draining:
        return JSONResponse({"status": "not ready", "reason": "the service is stopping"}, 503, {"Retry-After": "10"})
    try:
        rows = parts.register.list()
    except NotAvailable:
        return JSONResponse({"status": "not ready", "reason": "the database does not answer"}, 503)
    conditions = [_condition(parts, row.heartbeat_at, row.ready_at) for row in rows]
    if "ready" in conditions:
        return JSONResponse({"status": "ready"})
    reason = "the first worker is starting" if "starting" in conditions else "no worker is alive"
    return JSONResponse({"status": "not ready", "reason": reason}, 503, {"Retry-After": "1"})


@needs(Scope.METRICS)
async def metrics(request: Request) -> Response:
    """Prometheus metrics; the key needs the scope `metrics`."""
    measurements: Measurements = request.app.state.measurements
    text = await asyncio.to_thread(generate_latest, measurements.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
