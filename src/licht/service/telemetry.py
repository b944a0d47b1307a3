"""Traces over OTLP when the settings name an endpoint: from a request to the stages of its picture.

A span holds ids, names, sizes and times; never a prompt, a key, a query string or a picture. Without an endpoint nothing
of OpenTelemetry is imported.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from licht import __version__
from licht.core.errors import InvalidSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan

Value: TypeAlias = str | int | float | bool
Kind: TypeAlias = Literal["server", "consumer", "client"]
TRACEPARENT: Final[ContextVar[str | None]] = ContextVar("licht_traceparent", default=None)
"""The W3C trace context of the span that is open here."""


class Span(Protocol):
    """An open span."""

    def set(self, name: str, value: Value) -> None:
        """Note an attribute."""

    def rename(self, name: str) -> None:
        """Call the span otherwise: a route is known only after it was found."""

    def failed(self, why: str) -> None:
        """The work of this span went wrong."""

    def stage(self, name: str, start_s: float, end_s: float) -> None:
        """Note a part of the work that is over, by `time.time`."""


class _NoSpan:
    def set(self, name: str, value: Value) -> None:
        """Nobody listens."""

    def rename(self, name: str) -> None:
        """Nobody listens."""

    def failed(self, why: str) -> None:
        """Nobody listens."""

    def stage(self, name: str, start_s: float, end_s: float) -> None:
        """Nobody listens."""


class Telemetry:
    """Opens spans; the base of it opens none."""

    @contextmanager
    def span(
        self, name: str, kind: Kind, parent: str | None = None, attributes: Mapping[str, Value] | None = None
    ) -> Iterator[Span]:
        """A span around a block; `parent` is the W3C trace context that it belongs to."""
        del name, kind, parent, attributes
        yield _NoSpan()

    def close(self) -> None:
        """Send what has not been sent."""


class OtlpTelemetry(Telemetry):
    """Spans to an OTLP collector over HTTP, in the background and in batches."""

    def __init__(self, exporter: "SpanExporter", process: str, sample: float) -> None:
        """Send to `exporter`; `sample` is the part of new traces that is kept, a caller's own decision counts more."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": "licht", "service.version": __version__, "licht.process": process})
        # at the end of the process `close` sends the rest, with a limit; the library's own hook could wait for long
        self._provider = TracerProvider(
            resource=resource, sampler=ParentBasedTraceIdRatio(sample), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("licht", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self, name: str, kind: Kind, parent: str | None = None, attributes: Mapping[str, Value] | None = None
    ) -> Iterator[Span]:
        """See `Telemetry.span`."""
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        context = self._propagator.extract({"traceparent": parent} if parent is not None else {})
        opened = self._tracer.start_span(name, context, SpanKind[kind.upper()], dict(attributes or {}))
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(opened))
        token = TRACEPARENT.set(carrier.get("traceparent"))
        try:
            yield _OtlpSpan(opened, self._record)
        except BaseException as error:
            opened.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            TRACEPARENT.reset(token)
            opened.end()

    def close(self) -> None:
        """Send what has not been sent, for two seconds at most."""
        self._provider.force_flush(2000)
        self._provider.shutdown()

    def _record(self, parent: "OtelSpan", name: str, start_s: float, end_s: float) -> None:
        from opentelemetry.trace import set_span_in_context

        part = self._tracer.start_span(name, set_span_in_context(parent), start_time=int(start_s * 1e9))
        part.end(int(end_s * 1e9))


class _OtlpSpan:
    def __init__(self, span: "OtelSpan", record: "Callable[[OtelSpan, str, float, float], None]") -> None:
        self._span = span
        self._record = record

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def failed(self, why: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR, why)

    def stage(self, name: str, start_s: float, end_s: float) -> None:
        self._record(self._span, name, start_s, end_s)


def open_telemetry(endpoint: str | None, process: str, sample: float = 1.0) -> Telemetry:
    """Telemetry to the OTLP address `endpoint`, or none. Raises `InvalidSettings` where the library is missing."""
    if endpoint is None:
        return Telemetry()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise InvalidSettings(
            "telemetry.endpoint is set and the exporter is not installed; pip install 'lichtung[telemetry]'",
            field="telemetry.endpoint",
        ) from error
    return OtlpTelemetry(OTLPSpanExporter(endpoint=endpoint, timeout=5), process, sample)
