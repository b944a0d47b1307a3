"""What a request will cost and how long it will take, before it is made."""

import asyncio
from dataclasses import dataclass

from fastapi import APIRouter, Request
from pydantic import BaseModel

from licht.core.request import MAX_STEPS
from licht.safety.policy import Level, Policy, admit
from licht.service.api.accept import prepare_for
from licht.service.api.auth import Guarded, needs
from licht.service.api.bodies import JobBody, draft_of
from licht.service.api.inputs import Reader
from licht.service.api.parts import Parts, key_of, parts_of
from licht.service.api.prepare import Prepared
from licht.service.keys import Key, Scope
from licht.service.metering import MILLI, reported_megapixels
from licht.service.queue.register import About


class PlanView(BaseModel):
    """Cost in credits, times in seconds, sizes in pixels. None: not known yet, or for credits no limit."""

    model: str
    weights: str | None
    width: int
    height: int
    num: int
    steps: int | None
    guidance: float | None
    cost: float
    credits_left: float | None
    input_mp: float
    output_mp: float
    seconds: float | None
    wait_seconds: float | None
    jobs_ahead: int | None
    measured_jobs: int
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class _Times:
    """None where no worker has drawn anything yet."""

    seconds: float | None = None
    wait_s: float | None = None
    ahead: int | None = None
    measured: int = 0


def router() -> APIRouter:
    """The route."""
    made = APIRouter(route_class=Guarded, tags=["jobs"])
    made.add_api_route("/v1/plan", plan_job, methods=["POST"], response_model=PlanView)
    return made


@needs(Scope.GENERATE)
async def plan_job(request: Request, body: JobBody) -> PlanView:
    """Price and time of a request as it stands now; makes nothing. What could not be queued is an error here too."""
    parts, key = parts_of(request), key_of(request)
    reader = Reader(request.app.state.inputs, key.id)
    prepared = await prepare_for(parts, reader, draft_of(body.model, body, None))
    return await asyncio.to_thread(_plan, parts, key, prepared)


def _plan(parts: Parts, key: Key, prepared: Prepared) -> PlanView:
    # a prompt that is no text is an error; what the filters say is for the request itself
    admit(prepared.request, Policy(Level.OFF))
    draft, size = prepared.draft, prepared.size
    ready = [row for row in parts.register.list() if row.ready_at is not None]
    about = next((row.about for row in ready if row.about is not None), None)
    steps = settled_steps(prepared, about)
    times = _times(parts, key, (prepared, about, steps), len(ready)) if about is not None and steps else _Times()
    return PlanView(
        model=draft.route,
        weights=ready[0].model if ready else None,
        width=size.width,
        height=size.height,
        num=draft.num,
        steps=steps,
        guidance=_guidance(prepared, about),
        cost=prepared.cost_milli * draft.num / MILLI,
        credits_left=key.credits_milli / MILLI if key.credits_milli is not None else None,
        input_mp=reported_megapixels(sum(prepared.inputs_px)),
        output_mp=reported_megapixels(size.area_px),
        seconds=times.seconds,
        wait_seconds=times.wait_s,
        jobs_ahead=times.ahead,
        measured_jobs=times.measured,
        warnings=list(prepared.notes),
    )


def _times(parts: Parts, key: Key, asked: tuple[Prepared, About, int], workers: int) -> _Times:
    prepared, about, steps = asked
    work = (prepared.size.area_px + sum(prepared.inputs_px)) / 1e6 * steps * prepared.candidates
    rate = parts.forecast.rate(about, parts.clock())
    wait_s, ahead = parts.forecast.wait(key.id, rate, workers)
    return _Times(round(rate.seconds(work) * prepared.draft.num, 3), round(wait_s, 3), ahead, rate.jobs)


def settled_steps(prepared: Prepared, about: About | None) -> int | None:
    """How many steps it will be; None where that is the model's affair and no worker has told."""
    if prepared.request.steps is not None:
        return prepared.request.steps
    if about is None:
        return None
    return max(1, min(MAX_STEPS, round(about.default_steps * prepared.tier.step_factor * prepared.draft.step_factor)))


def _guidance(prepared: Prepared, about: About | None) -> float | None:
    if about is not None and not about.takes_guidance:
        return None
    if prepared.request.guidance is not None or about is None:
        return prepared.request.guidance
    return about.default_guidance
