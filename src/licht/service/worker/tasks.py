"""From a job's row to what an engine is asked for."""

import uuid

from licht.core.request import MAX_SEED, MAX_STEPS, ImageRequest, Margins, Mask, Picture, Reference, Role, Start
from licht.core.sizes import Size
from licht.service.queue.records import Input, Task
from licht.service.storage import Storage


def request_of(task: Task, storage: Storage, default_steps: int) -> ImageRequest:
    """The request of `task`, its pictures read from `storage`, for weights that take `default_steps` by themselves.

    Raises `NotAvailable` for a picture that is gone.
    """
    start = _start(task, storage)
    # a picture with a mask or margins has the size that it has, whole tokens or not
    keeps_size = start is not None and (task.mask is not None or task.extend is not None)
    return ImageRequest(
        prompt=task.prompt,
        seeds=tuple((task.seed + number) & MAX_SEED for number in range(task.candidates)),
        references=tuple(_reference(each, storage) for each in task.inputs),
        size=None if keeps_size else Size(task.width, task.height),
        steps=_steps(task, default_steps),
        guidance=task.guidance,
        native_only=task.native_only,
        start=start,
        mask=_mask(storage.get_picture(task.mask)) if task.mask is not None else None,
        extend=Margins(*task.extend) if task.extend is not None else None,
        previews=task.previews,
    )


def payload_of(job_id: str) -> int:
    """What the watermark of a job's picture holds: the last 16 hexadecimal digits of the job's id."""
    return uuid.UUID(job_id).int & ((1 << 64) - 1)


def _steps(task: Task, default_steps: int) -> int | None:
    if task.steps is not None or task.step_factor == 1.0:
        return task.steps
    return max(1, min(MAX_STEPS, round(default_steps * task.step_factor)))


def _reference(given: Input, storage: Storage) -> Reference:
    role = Role(given.role) if given.role is not None else None
    return Reference(storage.get_picture(given.digest), given.name, role=role, strength=given.strength)


def _start(task: Task, storage: Storage) -> Start | None:
    if task.start is None:
        return None
    picture = storage.get_picture(task.start)
    return Start(picture) if task.start_strength is None else Start(picture, task.start_strength)


def _mask(picture: Picture) -> Mask:
    """Masks are stored as gray pictures, so one of the three channels is all there is."""
    return Mask(picture.width, picture.height, picture.rgb[::3])
