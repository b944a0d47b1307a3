"""`licht usage`: what each key has used, by day."""

import csv
import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer


def usage(
    since: Annotated[str | None, typer.Option(help="First day (UTC), such as 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day, included.")] = None,
    key: Annotated[str | None, typer.Option(help="One key only: its id or visible prefix.")] = None,
    data: Annotated[Path | None, typer.Option(help="The service's data folder.")] = None,
    settings: Annotated[Path | None, typer.Option("--settings", "-s", help="Settings file (TOML).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of CSV.")] = False,
) -> None:
    """Print usage by day, key and route, as CSV."""
    from licht.service import metering
    from licht.service.database.probe import open_existing
    from licht.service.keys import KeyStore
    from licht.service.settings import load_settings

    for name, day in (("since", since), ("until", until)):
        _check_day(name, day)
    effective = load_settings(settings, {"data": str(data)} if data is not None else {})
    database = open_existing(effective.database_url)
    key_id = KeyStore(database).find(key).id if key is not None else None
    rows = [row.to_dict() for row in metering.usage(database, since=since, until=until, key_id=key_id)]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(metering.Usage)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    typer.echo(text.getvalue(), nl=False)


def _check_day(name: str, day: str | None) -> None:
    from datetime import date

    from licht.core.errors import InvalidRequest

    if day is None:
        return
    try:
        date.fromisoformat(day)
    except ValueError as error:
        raise InvalidRequest(f"--{name} {day!r} is no day; write 2026-11-30", field=name) from error
