"""`licht provenance`: the keys and certificates that pictures are signed with."""

import json
from pathlib import Path
from typing import Annotated

import typer

provenance = typer.Typer(help="Keys and certificates for content credentials.", no_args_is_help=True)


@provenance.command()
def init(
    name: Annotated[str, typer.Option(help="Who signs, as readers will show it.")] = "Licht",
    days: Annotated[float, typer.Option(min=0, help="How long the signing certificate is valid.")] = 3650,
    folder: Annotated[Path | None, typer.Option(help="Where (default: LICHT_TRUST, or the data folder).")] = None,
) -> None:
    """Make a private certificate chain and a watermark key; prints the folder. Existing keys are never replaced."""
    from licht.core.errors import OutputFailed
    from licht.safety import certificates
    from licht.safety.tools import trust_from_environment, write_watermark_key

    place = folder or trust_from_environment().folder
    try:
        certificates.create(place, name, days)
        write_watermark_key(place)
    except OSError as error:
        raise OutputFailed(f"keys cannot be written to {place} ({error.strerror}); choose another folder") from error
    typer.echo(str(place))


@provenance.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the certificates in use and say what they are."""
    from cryptography import x509

    from licht.safety.tools import Tools

    tools = Tools()
    credentials = tools.credentials
    leaf = x509.load_pem_x509_certificates(credentials.chain_pem)[0]
    report = {
        "folder": str(tools.trust.folder),
        "signer": leaf.subject.rfc4514_string(),
        "issuer": leaf.issuer.rfc4514_string(),
        "algorithm": credentials.algorithm,
        "valid_until": leaf.not_valid_after_utc.isoformat(),
        "time_stamps": credentials.time_stamp_url,
        "trusted_by_others": tools.trust.chain is not None,
    }
    if as_json:
        typer.echo(json.dumps(report))
        return
    for key, value in report.items():
        typer.echo(f"{key.replace('_', ' '):<18} {value if value is not None else 'none'}")
    if not report["trusted_by_others"]:
        typer.echo("This chain was made here: only who has its root.pem sees its pictures as trusted.", err=True)
