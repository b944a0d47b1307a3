"""What `licht serve --check` looks at beyond the names of settings, without making or starting anything."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from licht.service.settings import Settings


def check_parts(settings: "Settings") -> None:
    """The database lets us in, and what is named as `module:function` is there. Raises `InvalidSettings`."""
    from licht.cli.working import find_function
    from licht.service.database.probe import probe

    probe(settings.database_url)
    worker = settings.worker
    if worker.engine is not None:
        find_function(worker.engine, "worker.engine")
    if worker.ranker not in ("likelihood", "none"):
        find_function(worker.ranker, "worker.ranker")


def weights_of(settings: "Settings") -> dict[str, Any]:
    """Which weights are served, under which licence, in values and in words.

    Raises `UnknownModel` for weights that are not there, `InvalidSettings` for those that would not be served.
    """
    from licht.checkpoint.assets import built_in
    from licht.checkpoint.catalog import find_model
    from licht.cli.working import check_acknowledged, is_non_commercial

    worker = settings.worker
    if worker.engine is not None or worker.count == 0:
        why = "another engine draws" if worker.engine is not None else "no worker is started here"
        return {"name": None, "licence": None, "non_commercial": None, "says": f"none of Licht's own: {why}"}
    licence = "that of Licht itself"
    name = worker.model
    if worker.model not in built_in():
        variant = find_model(worker.model, worker.variant).variant
        name, licence = variant.name, variant.licence
        check_acknowledged(settings, name, licence)
    restricted = is_non_commercial(licence)
    note = ": NON-COMMERCIAL, acknowledged by worker.accept_non_commercial_licence" if restricted else ""
    if licence == "unknown":
        note = ": see yourself what it allows"
    says = f"{name}, licence {licence}{note}"
    return {"name": name, "licence": licence, "non_commercial": restricted, "says": says}
