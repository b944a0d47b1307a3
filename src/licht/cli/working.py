"""What a worker consists of, put together from the settings: in a process of `licht serve`, or wherever else it runs."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from licht.core.protocols import Ranker
    from licht.generate import Model
    from licht.service.database.connect import Database
    from licht.service.settings import Settings
    from licht.service.telemetry import Telemetry
    from licht.service.worker.drawing import Drawer
    from licht.service.worker.looking import Examine
    from licht.service.worker.loop import Worker
    from licht.upsample.ask import Upsampler

_NON_COMMERCIAL = "non-commercial"


@dataclass(frozen=True, slots=True)
class Opened:
    """A worker and what it holds open."""

    worker: "Worker"
    database: "Database"
    telemetry: "Telemetry"

    def run(self) -> None:
        """Work until the worker is stopped; then let go of everything."""
        self.worker.run()
        self.telemetry.close()
        self.database.close()

    def stop(self) -> None:
        """Take no more jobs; `run` returns when the one in hand is finished or handed back."""
        self.worker.stop()


def open_worker(settings: "Settings", worker_id: str | None, on_overdue: Callable[[], None]) -> Opened:
    """The worker that the settings describe, its weights named but not yet read.

    `on_overdue` ends the process where one step outlasts the draining. Raises `InvalidSettings` and its kin.
    """
    from licht.service.api.parts import open_looks, queue_limits
    from licht.service.database.migrate import open_migrated
    from licht.service.queue.store import JobStore
    from licht.service.storage import Storage
    from licht.service.telemetry import open_telemetry
    from licht.service.worker.looking import Looker
    from licht.service.worker.loop import Worker, WorkerLimits, new_name

    database = open_migrated(settings.database_url)
    drawer = _open_drawer(settings)
    check_licence(settings, drawer)
    limits = WorkerLimits(
        heartbeat_s=settings.queue.heartbeat_s,
        stall_s=settings.worker.stall_s,
        drain_s=settings.server.drain.pictures_s,
    )
    name = worker_id or new_name()
    telemetry = open_telemetry(settings.telemetry.endpoint, name, settings.telemetry.sample)
    storage = Storage(settings.storage_url, settings.storage.endpoint_url)
    worker = Worker(
        JobStore(database, queue_limits(settings)),
        storage,
        drawer,
        limits,
        name,
        on_overdue=on_overdue,
        telemetry=telemetry,
        looker=Looker(open_looks(settings, database), storage, _open_examine(), name),
    )
    return Opened(worker, database, telemetry)


def open_actor(settings: Mapping[str, Any], name: str) -> Opened:
    """The same in an actor of a Ray cluster, from settings as plain values."""
    from licht.service.logs import set_up_logging
    from licht.service.settings import Settings

    effective = Settings.model_validate(settings)
    set_up_logging(effective.logging.level, name)
    return open_worker(effective, name, on_overdue=lambda: os._exit(0))


def _open_examine() -> "Examine":
    """Looks with the keys of this installation, which may be made while the worker runs."""
    from licht.safety.examine import examine
    from licht.safety.tools import Tools

    tools = Tools()
    return lambda data: examine(data, tools.known_watermark(), tools.anchors() or None, registry=tools.registry)


def _open_drawer(settings: "Settings") -> "Drawer":
    """Licht's own engine, or the one that the settings name."""
    worker = settings.worker
    if worker.engine is not None:
        drawer: Drawer = _opened(settings, worker.engine, "worker.engine")
        return drawer
    from licht import load
    from licht.service.worker.drawing import ModelDrawer

    model = load(worker.model, variant=worker.variant, device=worker.device, dtype=worker.dtype, policy=worker.policy)
    return ModelDrawer(model, _open_ranker(settings, model), _open_upsampler(settings, model))


def _open_ranker(settings: "Settings", model: "Model") -> "Ranker | None":
    """What chooses between candidates, if anything does."""
    named = settings.worker.ranker
    if named == "none":
        return None
    if named == "likelihood":
        from licht.engine.ranker import LikelihoodRanker

        return LikelihoodRanker(model.engine)
    ranker: Ranker = _opened(settings, named, "worker.ranker")
    return ranker


def _open_upsampler(settings: "Settings", model: "Model") -> "Upsampler | None":
    """Who writes prompts out: an endpoint, a language model of this process, or nobody. Raises `InvalidSettings`."""
    asked = settings.upsampling
    if asked.url is not None:
        from licht.upsample.chat import ChatUpsampler

        key = asked.key.get_secret_value() if asked.key is not None else None
        return ChatUpsampler(asked.url, asked.model, key, asked.timeout_s)
    if asked.local is None:
        return None
    from licht.core.errors import InvalidSettings, NotAvailable
    from licht.service.worker.writing import TurnByTurn
    from licht.upsample.local import LocalUpsampler

    parts = model.engine.files.parts
    text_encoder, processor = parts.text_encoder, parts.tokenizer
    if asked.local != "own":
        folder = Path(asked.local).expanduser()
        text_encoder, processor = folder / "text_encoder", folder / "tokenizer"
    try:
        local = LocalUpsampler(text_encoder, processor, str(model.engine.placement.device))
    except NotAvailable as error:
        raise InvalidSettings(
            f"upsampling.local is {asked.local!r}, and the text encoder in {text_encoder} is no language model that can "
            "write; only dev's is: name the folder of a dev model, or set upsampling.url",
            field="upsampling.local",
        ) from error
    return local if asked.keep else TurnByTurn(local, local.close, model.engine.unload)


def _opened(settings: "Settings", name: str, field: str) -> Any:  # noqa: ANN401 - what the operator names
    """What the function `module:function` makes of the settings. Raises `InvalidSettings`."""
    return find_function(name, field)(settings)


def find_function(name: str, field: str) -> Callable[["Settings"], Any]:
    """The function that a setting names as `module:function`. Raises `InvalidSettings`."""
    import importlib

    from licht.core.errors import InvalidSettings

    module, _, function = name.partition(":")
    try:
        found: Callable[[Settings], Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InvalidSettings(f"{field} {name} cannot be opened ({error})", field=field) from error
    if not callable(found):
        raise InvalidSettings(f"{field} {name} is no function; name one as module:function", field=field)
    return found


def check_licence(settings: "Settings", drawer: "Drawer") -> None:
    """Raises `InvalidSettings` for non-commercial weights that the operator has not acknowledged."""
    check_acknowledged(settings, drawer.name, drawer.licence)


def is_non_commercial(licence: str) -> bool:
    """Whether it restricts what pictures may be used for."""
    return _NON_COMMERCIAL in licence.lower()


def check_acknowledged(settings: "Settings", name: str, licence: str) -> None:
    """The same, for weights by their name."""
    from licht.core.errors import InvalidSettings

    if is_non_commercial(licence) and not settings.worker.accept_non_commercial_licence:
        raise InvalidSettings(
            f"{name} is under the licence {licence}; read it, and if your use keeps to it, set "
            "worker.accept_non_commercial_licence = true",
            field="worker.accept_non_commercial_licence",
        )
