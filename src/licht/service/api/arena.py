"""The arena: one prompt drawn by two contestants, a vote without knowing which is which, and the table that follows."""

import asyncio
import random
import secrets
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import insert, select, update

from licht.core.elo import Standing, Vote, standings
from licht.core.errors import InvalidRequest, UnknownJob
from licht.core.request import MAX_STEPS
from licht.service.api.accept import accept
from licht.service.api.auth import Guarded, needs
from licht.service.api.bodies import SubmitBody, draft_of
from licht.service.api.parts import Parts, base_url_of, key_of, parts_of
from licht.service.database.connect import AnyRow
from licht.service.database.tables import BATTLES
from licht.service.keys import Key, Scope
from licht.service.queue.records import State

_SCORES: Final = {"a": 1.0, "tie": 0.5, "b": 0.0}
_COUNTED_VOTES: Final = 5_000
"""Older votes do not count any more: models change, and the table is computed when it is asked for."""


class Contestant(BaseModel):
    """A tier, and what is set on it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(max_length=100)]
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] | None = None

    @property
    def label(self) -> str:
        """What stands in the table."""
        parts = [self.model]
        parts += [f"{self.steps} steps"] if self.steps is not None else []
        parts += [f"guidance {self.guidance:g}"] if self.guidance is not None else []
        return ", ".join(parts)


class BattleBody(BaseModel):
    """`request` has the fields of `POST /v1/jobs`; model, steps and guidance are the contestants' own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request: SubmitBody
    contestants: Annotated[list[Contestant], Field(min_length=2, max_length=2)]


class VoteBody(BaseModel):
    """Which picture is better."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    winner: Literal["a", "b", "tie"]


class Side(BaseModel):
    """One of the two pictures. Who drew it is told after the vote."""

    state: str
    progress: float
    url: str | None
    name: str | None
    job: str | None


class Battle(BaseModel):
    """Two pictures of one prompt. `winner` is None until the vote."""

    id: str
    created_at: float
    prompt: str
    winner: str | None
    a: Side
    b: Side


class Interval(BaseModel):
    """A 95 % confidence interval."""

    low: float
    high: float


class Row(BaseModel):
    """A contestant's record."""

    name: str
    rating: float
    rating_interval: Interval
    votes: int
    wins: int
    ties: int
    losses: int
    win_rate: float
    win_rate_interval: Interval


class Table(BaseModel):
    """All contestants with a vote, the best first."""

    votes: int
    standings: list[Row]


def router() -> APIRouter:
    """The arena's routes."""
    made = APIRouter(route_class=Guarded, prefix="/v1/arena", tags=["arena"])
    made.add_api_route("", table, methods=["GET"], response_model=Table)
    made.add_api_route("/battles", create, methods=["POST"], status_code=202, response_model=Battle)
    made.add_api_route("/battles/{battle_id}", show, methods=["GET"], response_model=Battle)
    made.add_api_route("/battles/{battle_id}/vote", vote, methods=["POST"], response_model=Battle)
    return made


@needs(Scope.GENERATE)
async def create(request: Request, body: BattleBody) -> Battle:
    """Draw a prompt twice, with one seed. Which contestant is A is drawn by lot."""
    parts, base_url, key = parts_of(request), base_url_of(request), key_of(request)
    for number, contestant in enumerate(body.contestants):
        if contestant.model not in parts.tiers:
            raise InvalidRequest(
                f"model {contestant.model!r} is unknown; use one of {', '.join(parts.tiers)}",
                field=f"contestants.{number}.model",
            )
    if body.contestants[0] == body.contestants[1]:
        raise InvalidRequest("the contestants are the same; let them differ in something", field="contestants")
    order = list(body.contestants)
    random.SystemRandom().shuffle(order)
    seed = body.request.seed if body.request.seed is not None else secrets.randbelow(2**32)
    jobs = []
    for contestant in order:
        own = {"seed": seed, "steps": contestant.steps, "guidance": contestant.guidance}
        draft = draft_of(contestant.model, body.request.model_copy(update=own), None)
        jobs.append((await accept(parts, request.app.state.inputs, key, draft, base_url))["id"])
    battle_id = await asyncio.to_thread(_keep, parts, key, (jobs[0], jobs[1]), (order[0].label, order[1].label))
    return await asyncio.to_thread(_view, parts, key, battle_id, base_url)


@needs(Scope.GENERATE)
def show(request: Request, battle_id: str) -> Battle:
    """Where a battle stands."""
    return _view(parts_of(request), key_of(request), battle_id, base_url_of(request))


@needs(Scope.GENERATE)
def vote(request: Request, battle_id: str, body: VoteBody) -> Battle:
    """Say which picture is better: once, and when both are there."""
    parts, key = parts_of(request), key_of(request)
    row = _row(parts, key, battle_id)
    states = [_state(parts, key, job_id) for job_id in (row.job_a, row.job_b)]
    if states != [State.READY, State.READY]:
        raise InvalidRequest("both pictures must be ready before the vote; wait for them", field="winner")
    with parts.database.write() as connection:
        changed = connection.execute(
            update(BATTLES)
            .where(BATTLES.c.id == battle_id, BATTLES.c.score.is_(None))
            .values(score=_SCORES[body.winner], voted_at=parts.clock())
        )
    if changed.rowcount == 0:
        raise InvalidRequest("this battle has its vote already; begin another", field="winner")
    return _view(parts, key, battle_id, base_url_of(request))


@needs(Scope.GENERATE)
def table(request: Request, limit: Annotated[int, Query(ge=1, le=_COUNTED_VOTES)] = _COUNTED_VOTES) -> Table:
    """Elo ratings and win rates over the latest `limit` votes of all keys, with 95 % confidence intervals."""
    query = (
        select(BATTLES.c.name_a, BATTLES.c.name_b, BATTLES.c.score)
        .where(BATTLES.c.score.is_not(None))
        .order_by(BATTLES.c.voted_at.desc())
        .limit(limit)
    )
    with parts_of(request).database.read() as connection:
        votes = [Vote(row.name_a, row.name_b, row.score) for row in connection.execute(query)][::-1]
    return Table(votes=len(votes), standings=[_line(standing) for standing in standings(votes)])


def _line(standing: Standing) -> Row:
    return Row(
        name=standing.name,
        rating=round(standing.rating, 1),
        rating_interval=Interval(
            low=round(standing.rating_interval.low, 1), high=round(standing.rating_interval.high, 1)
        ),
        votes=standing.votes,
        wins=standing.wins,
        ties=standing.ties,
        losses=standing.losses,
        win_rate=round(standing.win_rate, 4),
        win_rate_interval=Interval(
            low=round(standing.win_rate_interval.low, 4), high=round(standing.win_rate_interval.high, 4)
        ),
    )


def _keep(parts: Parts, key: Key, jobs: tuple[str, str], names: tuple[str, str]) -> str:
    battle_id = f"battle_{secrets.token_hex(12)}"
    values: dict[str, Any] = {
        "id": battle_id,
        "key_id": key.id,
        "created_at": parts.clock(),
        "prompt": parts.store.get(jobs[0], key.id).task.prompt,
        "job_a": jobs[0],
        "job_b": jobs[1],
        "name_a": names[0],
        "name_b": names[1],
    }
    with parts.database.write() as connection:
        connection.execute(insert(BATTLES).values(values))
    return battle_id


def _row(parts: Parts, key: Key, battle_id: str) -> AnyRow:
    query = select(BATTLES).where(BATTLES.c.id == battle_id, BATTLES.c.key_id == key.id)
    with parts.database.read() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownJob("there is no such battle; check the id", field="id")
    return row


def _state(parts: Parts, key: Key, job_id: str) -> State | None:
    try:
        return parts.store.get(job_id, key.id).state
    except UnknownJob:
        return None


def _view(parts: Parts, key: Key, battle_id: str, base_url: str) -> Battle:
    row = _row(parts, key, battle_id)
    told = {1.0: "a", 0.5: "tie", 0.0: "b"}[row.score] if row.score is not None else None
    return Battle(
        id=row.id,
        created_at=row.created_at,
        prompt=row.prompt,
        winner=told,
        a=_side(parts, key, (row.job_a, row.name_a), base_url, told is not None),
        b=_side(parts, key, (row.job_b, row.name_b), base_url, told is not None),
    )


def _side(parts: Parts, key: Key, drawn: tuple[str, str], base_url: str, revealed: bool) -> Side:
    job_id, name = drawn
    known = {"name": name if revealed else None, "job": job_id if revealed else None}
    try:
        job = parts.store.get(job_id, key.id)
    except UnknownJob:
        return Side(state="deleted", progress=0.0, url=None, **known)
    url = parts.result_link(base_url, job_id) if job.state is State.READY else None
    return Side(state=job.state.value, progress=job.progress, url=url, **known)
