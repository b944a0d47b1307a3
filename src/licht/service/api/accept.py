"""From what a caller asked for to jobs in the queue: the same way for every protocol."""

import asyncio
import json
import logging
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection

from licht.core.errors import InvalidRequest, Refused
from licht.core.request import ImageRequest
from licht.safety.policy import Policy, admit
from licht.service.api.draft import Draft
from licht.service.api.inputs import Inputs, Reader
from licht.service.api.parts import Parts
from licht.service.api.prepare import Prepared, prepare, stored_mask
from licht.service.fetch import check_url
from licht.service.keys import Key
from licht.service.metering import MILLI, reported_megapixels
from licht.service.queue.records import Idempotency, Input, NewJob, Outcome, State, Task
from licht.service.telemetry import TRACEPARENT

_LOG: Final = logging.getLogger(__name__)
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,255}")
_TYPICAL_STEPS: Final = 20

Beside = Callable[[Connection, Sequence[str]], None]
"""Writes what belongs to jobs, given their ids, in the transaction that accepts them."""


async def accept(parts: Parts, inputs: Inputs, key: Key, draft: Draft, base_url: str) -> dict[str, Any]:
    """Check, price, admit and queue a request; returns the response, which a repeated request gets again.

    Raises `InvalidRequest` and its kin, `TooManyJobs`, `InsufficientCredits`, `IdempotencyConflict`, `Stopping`.
    """
    parts.ending.check()
    repeat = _idempotency(draft, {})
    if repeat is not None:
        # before any work: what a URL gave the first time may be gone by now
        known = await asyncio.to_thread(parts.store.replay, key.id, repeat)
        if known is not None:
            return _loaded(known.replayed)
    prepared = await prepare_for(parts, Reader(inputs, key.id), draft)
    return await asyncio.to_thread(submit, parts, key, [prepared], base_url)


async def prepare_for(parts: Parts, reader: Reader, draft: Draft) -> Prepared:
    """Everything up to the queue: a draft that gets through this can be queued. Raises as `accept` does."""
    _check_outside(parts, draft)
    if draft.route not in parts.tiers:
        raise InvalidRequest(
            f"model {draft.route[:100]!r} is unknown; use one of {', '.join(parts.tiers)}", field="model"
        )
    prepared = await prepare(reader, draft, parts.tiers[draft.route])
    if draft.upsample and not parts.settings.upsampling.configured:
        note = "prompt upsampling is not configured here: the prompt was used as it is"
        return replace(prepared, notes=(*prepared.notes, note))
    return prepared


def submit(
    parts: Parts, key: Key, prepared: Sequence[Prepared], base_url: str, beside: Beside | None = None
) -> dict[str, Any]:
    """Queue all of `prepared`, or nothing; returns the response of the first. Raises as `accept` does."""
    parts.ending.check()
    jobs: list[NewJob] = []
    for one in prepared:
        jobs += _build(parts, key, one, base_url)
    response = _response(prepared[0], jobs[0], base_url)
    first = prepared[0].draft
    jobs[0] = replace(jobs[0], idempotency=_idempotency(first, response))
    ids = [job.id for job in jobs]
    accepted = parts.store.submit(
        *jobs, beside=(lambda connection: beside(connection, ids)) if beside is not None else None
    )
    if accepted.replayed is not None:
        return _loaded(accepted.replayed)
    for job in jobs:
        told = {"prompt": job.task.prompt} if parts.settings.logging.prompts else {}
        _LOG.info("accepted", extra={"job": job.id, "key": key.id, "route": job.route, **told})
    return response


def policy_of(parts: Parts, key: Key, draft: Draft) -> Policy:
    """The service's policy with the caller's tolerance, within what the operator allows that key."""
    return parts.policy.for_key(key.id, draft.safety_tolerance)


def _loaded(replayed: str | None) -> dict[str, Any]:
    repeated: dict[str, Any] = json.loads(replayed or "{}")
    return repeated


def _build(parts: Parts, key: Key, prepared: Prepared, base_url: str) -> list[NewJob]:
    """One job for each seed."""
    draft, size = prepared.draft, prepared.size
    policy = policy_of(parts, key, draft)
    refused = _refused(prepared.request, policy)
    # what the policy refuses is not kept
    task = _task(parts, prepared) if refused is None else _bare_task(prepared)
    task = replace(task, safety_tolerance=policy.tolerance, policy=policy.level.value)
    ids = tuple(str(uuid.uuid4()) for _ in prepared.seeds)
    steps = (task.steps or _TYPICAL_STEPS) * prepared.candidates
    return [
        NewJob(
            id=job_id,
            key_id=key.id,
            route=draft.route,
            task=replace(task, seed=seed, batch=ids),
            work=(size.area_px + sum(prepared.inputs_px)) / 1e6 * steps,
            cost_milli=prepared.cost_milli,
            input_px=sum(prepared.inputs_px),
            output_px=size.area_px,
            base_url=base_url,
            webhook_url=draft.webhook_url,
            webhook_secret=draft.webhook_secret,
            outcome=refused,
            wanted_s=draft.wanted_s,
            traceparent=TRACEPARENT.get(),
        )
        for job_id, seed in zip(ids, prepared.seeds, strict=True)
    ]


def _bare_task(prepared: Prepared) -> Task:
    """A task without pictures."""
    draft, size, tier = prepared.draft, prepared.size, prepared.tier
    return Task(
        prompt=draft.prompt,
        seed=prepared.seeds[0],
        width=size.width,
        height=size.height,
        steps=prepared.request.steps,
        step_factor=tier.step_factor * draft.step_factor if prepared.request.steps is None else 1.0,
        guidance=prepared.request.guidance,
        file_format=(draft.output_format or tier.output_format).upper(),
        file_quality=draft.file_quality,
        safety_tolerance=draft.safety_tolerance,
        notes=prepared.notes,
        finish=prepared.finish,
        candidates=prepared.candidates,
        upsample=prepared.upsample,
        previews=draft.previews,
    )


def _task(parts: Parts, prepared: Prepared) -> Task:
    """The task, its pictures stored."""
    request, store = prepared.request, parts.storage.put_picture
    return replace(
        _bare_task(prepared),
        inputs=tuple(
            Input(store(each.picture), each.name, each.role.value if each.role is not None else None, each.strength)
            for each in request.references
        ),
        start=store(request.start.picture) if request.start is not None else None,
        start_strength=request.start.strength if request.start is not None else None,
        mask=store(stored_mask(request.mask)) if request.mask is not None else None,
        extend=(request.extend.left, request.extend.top, request.extend.right, request.extend.bottom)
        if request.extend is not None
        else None,
    )


def _refused(request: ImageRequest, policy: Policy) -> Outcome | None:
    """The first look of the door; the worker looks again."""
    try:
        admit(request, policy, early=True)
    except Refused as error:
        return Outcome(State.MODERATED, error_code="request_moderated", error=error.message)
    return None


def _response(prepared: Prepared, job: NewJob, base_url: str) -> dict[str, Any]:
    response: dict[str, Any] = {
        "id": job.id,
        "polling_url": f"{base_url}/v1/get_result?id={job.id}",
        "cost": prepared.cost_milli / MILLI,
        "input_mp": reported_megapixels(sum(prepared.inputs_px)),
        "output_mp": reported_megapixels(prepared.size.area_px),
    }
    if prepared.draft.webhook_url is not None:
        response |= {"status": "Pending", "webhook_url": prepared.draft.webhook_url}
    return response


def _check_outside(parts: Parts, draft: Draft) -> None:
    if draft.idempotency_token is not None and _TOKEN.fullmatch(draft.idempotency_token) is None:
        raise InvalidRequest("an Idempotency-Key has 1 to 255 visible ASCII characters", field="Idempotency-Key")
    if draft.webhook_url is not None:
        if not parts.settings.fetch.enabled:
            raise InvalidRequest("webhooks are switched off here; poll for the result", field="webhook_url")
        try:
            check_url(draft.webhook_url)
        except InvalidRequest as error:
            raise InvalidRequest(error.message, field="webhook_url") from error


def _idempotency(draft: Draft, response: dict[str, Any]) -> Idempotency | None:
    if draft.idempotency_token is None:
        return None
    return Idempotency(draft.idempotency_token, draft.fingerprint, json.dumps(response), draft.idempotency_awaits_end)
