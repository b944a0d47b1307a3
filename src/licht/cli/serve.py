"""`licht serve`: API and workers as supervised processes, on one address."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import socket

    from licht.service.settings import Settings
    from licht.service.supervise import Role

_SWITCH_S = 0.001
_FIRST_KEY = "first-key"


class Part(StrEnum):
    """What one process does."""

    ALL = "all"
    API = "api"
    WORKER = "worker"
    RAY = "ray"


def serve(
    settings: Annotated[Path | None, typer.Option("--settings", "-s", help="Settings file (TOML).")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder for rows, pictures and secrets.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (default: 8000; 0: any free one).")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A model's name, folder or file.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes (default: 1).")] = None,
    only: Annotated[
        Part, typer.Option(help="Run one part alone: api, worker, or ray (workers in a cluster).")
    ] = Part.ALL,
    check: Annotated[bool, typer.Option("--check", help="Print the effective settings and what is off; end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print address and key as JSON.")] = False,
    supervised_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    worker_id: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve the FLUX API: durable jobs, keys, metering, one worker by default."""
    from licht.service.settings import load_settings

    overrides = {
        "data": str(data) if data is not None else None,
        "server.host": host,
        "server.port": port,
        "worker.model": model,
        "worker.count": workers,
    }
    effective = load_settings(settings, {name: value for name, value in overrides.items() if value is not None})
    if check:
        _show(effective, as_json)
        return
    if only is Part.ALL:
        raise typer.Exit(_supervise(effective, _own_options(settings, overrides), as_json))
    from licht.service.logs import set_up_logging

    set_up_logging(effective.logging.level, worker_id or only.value)
    if only is Part.API:
        _run_api(effective, supervised_fd)
    elif only is Part.RAY:
        _run_fleet(effective)
    else:
        _run_worker(effective, worker_id)


def _own_options(settings: Path | None, overrides: dict[str, Any]) -> list[str]:
    """The options that make another process of ours see the same settings."""
    options = ["--settings", str(settings)] if settings is not None else []
    names = {"data": "--data", "worker.model": "--model"}
    for name, option in names.items():
        if overrides[name] is not None:
            options += [option, str(overrides[name])]
    return options


def _show(settings: "Settings", as_json: bool) -> None:
    from licht.cli.checking import check_parts, weights_of

    without = _without(settings, make_keys=False)
    check_parts(settings)
    weights = weights_of(settings)
    if as_json:
        typer.echo(json.dumps({"settings": settings.masked(), "switched_off": without, "weights": weights}))
        return
    typer.echo(json.dumps(settings.masked(), indent=2))
    typer.echo(f"weights: {weights['says']}")
    for line in without:
        typer.echo(f"off: {line}")


def _without(settings: "Settings", make_keys: bool = True) -> list[str]:
    """What this service does without. Raises what is wrong with its policy: before anything starts, in one line."""
    from licht.safety.policy import notices, parse_policy

    lines = settings.switched_off()
    if settings.worker.policy == "off":
        return lines
    return [*lines, *notices(parse_policy(settings.worker.policy, make_keys))]


def _supervise(settings: "Settings", options: list[str], as_json: bool) -> int:
    """Listen, start the processes, say where, and look after them until a signal comes."""
    import secrets

    from licht.service.logs import set_up_logging
    from licht.service.supervise import Role, Supervisor, end_on_signals

    set_up_logging(settings.logging.level, "supervisor")
    without = _without(settings)
    listening = _listen(settings.server.host, settings.server.port)
    run = secrets.token_hex(4)
    base = [sys.executable, "-m", "licht", "serve", *options]
    descriptor = listening.fileno()
    roles = [Role("api", [*base, "--only", "api", "--supervised-fd", str(descriptor)], (descriptor,), True)]
    names = [f"worker-{number}-{run}" for number in range(1, settings.worker.count + 1)]
    roles += [Role(name, [*base, "--only", "worker", "--worker-id", name]) for name in names]
    supervisor = Supervisor(roles, settings.server.drain.processes_s, lambda role, _code: _tidy(settings, role))
    end_on_signals(supervisor.stop)
    try:
        # before anything else is imported here: the processes have the same to do
        supervisor.start()
        _greet(settings, listening, _first_key(settings), without, as_json)
    except BaseException:
        supervisor.stop()
        raise
    finally:
        code = supervisor.run()
        listening.close()
    return code


def _tidy(settings: "Settings", role: "Role") -> None:
    """The jobs of a worker that has died need not wait until their leases run out."""
    if not role.ends_last:
        _take_back(settings, role.name)


def _take_back(settings: "Settings", worker: str) -> None:
    from licht.service.database.connect import Database
    from licht.service.queue.records import QueueLimits
    from licht.service.queue.register import Register
    from licht.service.queue.store import JobStore

    database = Database(settings.database_url)
    JobStore(database, QueueLimits(max_deaths=settings.queue.max_deaths)).leases.reap(owner=worker)
    Register(database).leave(worker)
    database.close()


def _greet(settings: "Settings", listening: "socket.socket", key: str, without: list[str], as_json: bool) -> None:
    import os

    host, port = listening.getsockname()[:2]
    url = settings.server.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if as_json:
        typer.echo(json.dumps({"url": url, "key": key, "pid": os.getpid(), "data": str(settings.data)}))
    else:
        typer.echo(f"Licht serves {settings.worker.model} at {url}/#key={key}")
        typer.echo(f"API key: {key}")
        for line in without:
            typer.echo(f"off: {line}")
    sys.stdout.flush()


def _first_key(settings: "Settings") -> str:
    """The key of whoever sits at this machine, kept in the data folder for them alone; made anew if it was revoked."""
    from licht.core.errors import NotAuthenticated
    from licht.service.database.migrate import open_migrated
    from licht.service.database.private import make_folder
    from licht.service.keys import KeyStore, Scope

    database = open_migrated(settings.database_url)
    keys = KeyStore(database)
    path = settings.data / _FIRST_KEY
    if path.exists():
        text = path.read_text(encoding="ascii").strip()
        try:
            keys.authenticate(text)
        except NotAuthenticated:
            path.unlink()
        else:
            return text
    make_folder(settings.data)
    created = keys.create("first", tuple(Scope))
    path.touch(mode=0o600)
    path.write_text(created.text + "\n", encoding="ascii")
    database.close()
    return created.text


def _listen(host: str, port: int) -> "socket.socket":
    """The supervisor listens, and hands the socket on: while the API starts again, callers wait instead of failing."""
    import socket

    from licht.core.errors import NotAvailable

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise NotAvailable(f"{host}:{port} cannot be used ({error.strerror}); choose another --port") from error
    listening.listen(1024)
    return listening


def _run_api(settings: "Settings", supervised_fd: int | None) -> None:
    import gc
    import socket

    from licht.service.api.app import create_app
    from licht.service.api.server import DrainingServer
    from licht.service.supervise import end_with_supervisor

    app = create_app(settings)
    alone = supervised_fd is None
    server = DrainingServer(app, app.state.parts.ending, settings.server.drain.calls_s, alone)
    if supervised_fd is not None:
        end_with_supervisor(server.hurry)
        listening = socket.socket(fileno=supervised_fd)
    else:
        listening = _listen(settings.server.host, settings.server.port)
    # what was loaded stays: without this, each full collection looks through all of it while callers wait
    gc.collect()
    gc.freeze()
    # the loop gets its turn while a thread is busy with a row
    sys.setswitchinterval(_SWITCH_S)
    server.run(sockets=[listening])


def _run_worker(settings: "Settings", worker_id: str | None) -> None:
    import os

    from licht.cli.working import open_worker
    from licht.service.supervise import end_on_signals, end_with_supervisor

    opened = open_worker(settings, worker_id, on_overdue=lambda: os._exit(0))
    end_on_signals(opened.worker.stop)
    if worker_id is not None:
        end_with_supervisor()
    opened.run()


def _run_fleet(settings: "Settings") -> None:
    """Workers as actors of a Ray cluster, until a signal comes."""
    import secrets

    from licht.cli.working import open_actor
    from licht.core.errors import InvalidSettings
    from licht.service.ray import Fleet, FleetChoice
    from licht.service.supervise import end_on_signals

    if settings.database.url is None or settings.storage.url is None:
        raise InvalidSettings(
            "workers in a cluster need a PostgreSQL (database.url) and a storage that all machines reach (storage.url)",
            field="database.url" if settings.database.url is None else "storage.url",
        )
    choice = FleetChoice(settings.ray.address, settings.worker.count, settings.ray.gpus, settings.ray.cpus)
    fleet = Fleet(choice, open_actor, settings.model_dump(), lambda name: _take_back(settings, name))
    end_on_signals(fleet.stop)
    fleet.run(f"ray-{secrets.token_hex(4)}", settings.server.drain.processes_s)
