"""`licht verify`: what a picture says about itself, and whether it carries this installation's mark."""

import datetime as dt
import json
from pathlib import Path
from typing import Annotated, Any

import typer


def verify(
    image: Annotated[Path, typer.Argument(help="A picture file.")],
    root: Annotated[Path | None, typer.Option(help="Certificates (PEM) of whom you trust, beside your own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report.")] = False,
) -> None:
    """Read IMAGE's content credentials and look for this installation's watermark. Makes no network request."""
    from licht.safety.certificates import read_anchors
    from licht.safety.examine import examine
    from licht.safety.tools import Tools

    tools = Tools()
    trusted = b"".join(part for part in (tools.anchors(), read_anchors(root) if root else None) if part)
    report = examine(image, tools.known_watermark(), trusted or None, registry=tools.registry)
    if as_json:
        typer.echo(json.dumps(report))
        return
    for line in _plain(report):
        typer.echo(line)


def _plain(report: dict[str, Any]) -> list[str]:
    """The report in words."""
    credentials, mark = report["c2pa"], report["watermark"]
    said = {
        "none": "Content credentials: none. The file says nothing about how it was made.",
        "trusted": "Content credentials: intact, signed by {signer}, whom you trust.",
        "valid": "Content credentials: intact, signed by {signer}, whom this installation does not know.",
        "invalid": "Content credentials: BROKEN ({problems}). The file was altered, or its signature has expired.",
    }
    lines = [
        said[credentials["state"]].format(
            signer=credentials["signer"] or "an unnamed signer",
            problems=", ".join(credentials["problems"]) or "unreadable",
        )
    ]
    if credentials["source_types"]:
        lines.append(
            f"  It says: {', '.join(credentials['source_types'])}, by {credentials['model'] or 'an unnamed tool'}."
        )
    if mark is None:
        lines.append("Watermark: not looked for, because this installation has no key yet.")
    elif mark["detected"]:
        holds = f", payload {mark['payload']}" if mark["payload"] else ", payload not readable"
        lines.append(f"Watermark: made by this installation (p = {max(mark['p'], 1e-300):.0e}){holds}.")
    else:
        lines.append(f"Watermark: none of this installation's (p = {mark['p']:.2g}).")
    known = report["known"]
    if known is not None:
        when = dt.datetime.fromtimestamp(known["at"], dt.UTC)
        lines.append(
            f"Known: this installation released this picture, or one that looks the same, on {when:%Y-%m-%d %H:%M} UTC "
            f"(hashes differ in {known['distance']} of 256 bits)."
        )
        if mark is not None and mark["payload"] and known["payload"] and mark["payload"] != known["payload"]:
            lines.append("WARNING: the watermark is that of another picture; it may have been copied onto this one.")
    if report["agrees"] is False:
        lines.append("WARNING: the credentials name another watermark than the one in the picture.")
    lines.append("A picture without either can still be made by a model: both can be lost or removed.")
    return lines
