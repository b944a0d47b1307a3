"""`licht keys`: who may use the service."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from licht.service.keys import CreatedKey, KeyStore

keys = typer.Typer(help="API keys of the service.", no_args_is_help=True)

Data = Annotated[Path | None, typer.Option(help="The service's data folder.")]
SettingsFile = Annotated[Path | None, typer.Option("--settings", "-s", help="Settings file (TOML).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyId = Annotated[str, typer.Argument(help="A key's id, or its visible prefix.")]


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "key",
    scope: Annotated[list[str] | None, typer.Option(help="generate or metrics; repeat for both.")] = None,
    credits_limit: Annotated[
        float | None, typer.Option("--credits", help="Credits to spend (default: no limit).")
    ] = None,
    active_limit: Annotated[int | None, typer.Option(help="Jobs at a time (default: the service's).")] = None,
    priority: Annotated[int, typer.Option(help="Levels of priority; 0 is usual.")] = 0,
    days: Annotated[float | None, typer.Option(help="Days until it expires (default: never).")] = None,
    data: Data = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once."""
    import time

    from licht.core.errors import InvalidRequest
    from licht.service.keys import Scope
    from licht.service.metering import MILLI

    if days is not None and not 0 < days < 100_000:
        raise InvalidRequest(f"--days is {days}; use a number above 0", field="days")
    if credits_limit is not None and not 0 <= credits_limit <= 1e12:
        raise InvalidRequest(f"--credits is {credits_limit}; use a number from 0 to 1e12", field="credits")
    created = _store(data, settings, make=True).create(
        name,
        scope or (Scope.GENERATE,),
        credits_milli=round(credits_limit * MILLI) if credits_limit is not None else None,
        active_limit=active_limit,
        priority=priority,
        expires_at=time.time() + days * 86400 if days is not None else None,
    )
    _show_created(created, as_json)


@keys.command("list")
def list_keys(data: Data = None, settings: SettingsFile = None, as_json: AsJson = False) -> None:
    """Show all keys, without their secrets."""
    found = _store(data, settings).list()
    if as_json:
        typer.echo(json.dumps([key.to_dict() for key in found]))
        return
    for key in found:
        credit = "no limit" if key.credits_milli is None else f"{key.credits_milli / 1000:g} credits"
        state = "revoked" if key.revoked_at is not None else credit
        typer.echo(f"{key.id}  {key.prefix}  {','.join(key.scopes)}  {state}  {key.name}")


@keys.command()
def revoke(key: KeyId, data: Data = None, settings: SettingsFile = None, as_json: AsJson = False) -> None:
    """End a key at once."""
    store = _store(data, settings)
    revoked = store.revoke(store.find(key).id)
    typer.echo(json.dumps(revoked.to_dict()) if as_json else f"{revoked.prefix} is revoked")


@keys.command()
def rotate(
    key: KeyId,
    overlap: Annotated[float, typer.Option(help="Seconds that the old key goes on working.")] = 0.0,
    data: Data = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Replace a key by a new one with the same rights and credits."""
    store = _store(data, settings)
    _show_created(store.rotate(store.find(key).id, overlap), as_json)


@keys.command("credits")
def add_credits(
    key: KeyId,
    amount: Annotated[float, typer.Argument(help="Credits to add; below zero they are taken.")],
    data: Data = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Give a key credits; a key without a limit gets one."""
    from licht.service.metering import MILLI

    store = _store(data, settings)
    changed = store.add_credits(store.find(key).id, round(amount * MILLI))
    left = (changed.credits_milli or 0) / MILLI
    typer.echo(json.dumps(changed.to_dict()) if as_json else f"{changed.prefix} has {left:g} credits")


def _store(data: Path | None, settings: Path | None, make: bool = False) -> "KeyStore":
    """The keys of a service; only with `make` is there one afterwards where there was none. Raises `InvalidSettings`."""
    from licht.service.database.migrate import open_migrated
    from licht.service.database.probe import open_existing
    from licht.service.keys import KeyStore
    from licht.service.settings import load_settings

    effective = load_settings(settings, {"data": str(data)} if data is not None else {})
    opened = open_migrated if make else open_existing
    return KeyStore(opened(effective.database_url))


def _show_created(created: "CreatedKey", as_json: bool) -> None:
    if as_json:
        shown = {"id": created.key.id, "key": created.text, "prefix": created.key.prefix, "scopes": created.key.scopes}
        typer.echo(json.dumps(shown))
    else:
        typer.echo(created.text)
        typer.echo("Keep it now: it is stored as a hash only, and cannot be shown again.", err=True)
