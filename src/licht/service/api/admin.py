"""For whoever looks after the service: keys and limits, usage by day, queue and workers, what was refused."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select

from licht.service.api.auth import Guarded, needs
from licht.service.api.parts import parts_of
from licht.service.database.tables import JOBS, KEYS
from licht.service.keys import Key, Scope
from licht.service.metering import MILLI, usage
from licht.service.queue.records import State

_DAY: Final = r"^\d{4}-\d{2}-\d{2}$"
_MOST_CREDITS: Final = 1e9
_SILENT_BEATS: Final = 4


class KeyView(BaseModel):
    """A key without its secret. `credits` None means no limit, `active_limit` None the service's own."""

    id: str
    prefix: str
    name: str
    scopes: list[str]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    credits: float | None
    active_limit: int | None
    priority: int
    active: int


class KeyList(BaseModel):
    """All keys, the oldest first."""

    keys: list[KeyView]


class NewKey(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[str], Field(min_length=1, max_length=10)] = [Scope.GENERATE.value]
    credits: Annotated[float, Field(ge=0, le=_MOST_CREDITS, allow_inf_nan=False)] | None = None
    active_limit: Annotated[int, Field(ge=0, le=100_000)] | None = None


class CreatedView(BaseModel):
    """A new key. `text` is shown this once."""

    key: KeyView
    text: str


class Limits(BaseModel):
    """What changes about a key: `add_credits` may be below zero; an `active_limit` of null is the service's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    add_credits: Annotated[float, Field(ge=-_MOST_CREDITS, le=_MOST_CREDITS, allow_inf_nan=False)] | None = None
    active_limit: Annotated[int, Field(ge=0, le=100_000)] | None = None


class Day(BaseModel):
    """What one key used on one day (UTC) through one route."""

    day: str
    key_id: str
    key_name: str
    route: str
    pictures: int
    moderated: int
    failed: int
    cancelled: int
    input_megapixels: float
    output_megapixels: float
    credits: float
    run_s: float


class UsageView(BaseModel):
    """Usage, oldest first."""

    usage: list[Day]


class WorkerView(BaseModel):
    """A worker as it was last heard of. Times in seconds since 1970."""

    id: str
    host: str
    model: str
    condition: str
    started_at: float
    heartbeat_at: float


class QueueView(BaseModel):
    """Jobs by state, how long the oldest waits, those that were given up, and who is at work."""

    jobs: dict[str, int]
    oldest_queued_s: float
    dead_letters: int
    workers: list[WorkerView]


class Refusal(BaseModel):
    """A job that the policy refused. Its prompt is not told here: logs never hold prompts."""

    id: str
    at: float
    key_id: str
    key_name: str
    model: str
    code: str
    reason: str


class RefusalList(BaseModel):
    """Refusals, newest first."""

    refusals: list[Refusal]


def router() -> APIRouter:
    """Routes for keys with the scope `admin`."""
    made = APIRouter(route_class=Guarded, prefix="/v1/admin", tags=["admin"])
    made.add_api_route("/keys", list_keys, methods=["GET"], response_model=KeyList)
    made.add_api_route("/keys", create_key, methods=["POST"], status_code=201, response_model=CreatedView)
    made.add_api_route("/keys/{key_id}/revoke", revoke_key, methods=["POST"], response_model=KeyView)
    made.add_api_route("/keys/{key_id}/limits", change_limits, methods=["PATCH"], response_model=KeyView)
    made.add_api_route("/usage", show_usage, methods=["GET"], response_model=UsageView)
    made.add_api_route("/queue", show_queue, methods=["GET"], response_model=QueueView)
    made.add_api_route("/moderation", show_moderation, methods=["GET"], response_model=RefusalList)
    return made


@needs(Scope.ADMIN)
def list_keys(request: Request) -> KeyList:
    """All keys."""
    active = _active(request)
    return KeyList(keys=[_view(key, active) for key in parts_of(request).keys.list()])


@needs(Scope.ADMIN)
def create_key(request: Request, body: NewKey) -> CreatedView:
    """Make a key."""
    credits_milli = round(body.credits * MILLI) if body.credits is not None else None
    created = parts_of(request).keys.create(
        body.name, body.scopes, credits_milli=credits_milli, active_limit=body.active_limit
    )
    return CreatedView(key=_view(created.key, {}), text=created.text)


@needs(Scope.ADMIN)
def revoke_key(request: Request, key_id: str) -> KeyView:
    """End a key at once."""
    return _view(parts_of(request).keys.revoke(key_id), _active(request))


@needs(Scope.ADMIN)
def change_limits(request: Request, key_id: str, body: Limits) -> KeyView:
    """Give or take credits, and say how many jobs may be active at a time."""
    keys = parts_of(request).keys
    changed = keys.get(key_id)
    if body.add_credits is not None:
        changed = keys.add_credits(key_id, round(body.add_credits * MILLI))
    if "active_limit" in body.model_fields_set:
        changed = keys.limit_active(key_id, body.active_limit)
    return _view(changed, _active(request))


@needs(Scope.ADMIN)
def show_usage(
    request: Request,
    since: Annotated[str | None, Query(pattern=_DAY)] = None,
    until: Annotated[str | None, Query(pattern=_DAY)] = None,
) -> UsageView:
    """Usage by day, key and route; days are UTC, both included."""
    rows = usage(parts_of(request).database, since=since, until=until)
    return UsageView(
        usage=[Day(**{name: value for name, value in row.to_dict().items() if name in _DAY_FIELDS}) for row in rows]
    )


_DAY_FIELDS: Final = frozenset(Day.model_fields)


@needs(Scope.ADMIN)
def show_queue(request: Request) -> QueueView:
    """How full the queue is, and who works on it."""
    parts = parts_of(request)
    depth = parts.store.depth()
    silent_s = parts.settings.queue.heartbeat_s * _SILENT_BEATS
    workers = []
    for row in parts.register.list():
        condition = "starting" if row.ready_at is None else "ready"
        if parts.clock() - row.heartbeat_at > silent_s:
            condition = "silent"
        workers.append(
            WorkerView(
                id=row.id,
                host=row.host,
                model=row.model,
                condition=condition,
                started_at=row.started_at,
                heartbeat_at=row.heartbeat_at,
            )
        )
    return QueueView(
        jobs=dict(depth.by_state),
        oldest_queued_s=depth.oldest_queued_s,
        dead_letters=depth.dead_letters,
        workers=workers,
    )


@needs(Scope.ADMIN)
def show_moderation(request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> RefusalList:
    """What the policy refused."""
    query = (
        select(JOBS.c.id, JOBS.c.finished_at, JOBS.c.key_id, KEYS.c.name, JOBS.c.route, JOBS.c.error_code, JOBS.c.error)
        .join(KEYS, KEYS.c.id == JOBS.c.key_id)
        .where(JOBS.c.state == State.MODERATED.value)
        .order_by(JOBS.c.finished_at.desc())
        .limit(limit)
    )
    with parts_of(request).database.read() as connection:
        rows = connection.execute(query).all()
    return RefusalList(
        refusals=[
            Refusal(
                id=row.id,
                at=row.finished_at,
                key_id=row.key_id,
                key_name=row.name,
                model=row.route,
                code=row.error_code or "moderated",
                reason=row.error or "refused by the policy",
            )
            for row in rows
        ]
    )


def _active(request: Request) -> dict[str, int]:
    """Active jobs by key."""
    query = (
        select(JOBS.c.key_id, func.count())
        .where(JOBS.c.state.in_([State.QUEUED.value, State.RUNNING.value]))
        .group_by(JOBS.c.key_id)
    )
    with parts_of(request).database.read() as connection:
        return {key_id: int(count) for key_id, count in connection.execute(query)}


def _view(key: Key, active: dict[str, int]) -> KeyView:
    values: dict[str, Any] = key.to_dict()
    shown = {name: values[name] for name in KeyView.model_fields if name in values}
    return KeyView(
        **{**shown, "scopes": list(key.scopes)},
        credits=key.credits_milli / MILLI if key.credits_milli is not None else None,
        active=active.get(key.id, 0),
    )
