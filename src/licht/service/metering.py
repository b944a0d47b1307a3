"""What is billed, and what was used. Credits are counted in whole thousandths, so sums are exact."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import func, select

from licht.service.database.connect import Database
from licht.service.database.tables import KEYS, METERING

BILLED_MEGAPIXEL_PX: Final = 1024 * 1024
MILLI: Final = 1000


def billed_megapixels(pixels: int) -> int:
    """Megapixels of one picture on the bill: of 1,048,576 pixels each, begun ones count, at least one."""
    return max(1, math.ceil(pixels / BILLED_MEGAPIXEL_PX))


def reported_megapixels(pixels: int) -> float:
    """Megapixels as responses tell them: millions of pixels with two decimals."""
    return round(pixels / 1e6, 2)


def cost_milli(first_mp: float, further_mp: float, output_px: int, inputs_px: Sequence[int]) -> int:
    """Price of one picture in thousandths of a credit.

    credits = first_mp + (output MP - 1) x further_mp + sum of input MP x further_mp, MP as billed.
    """
    further = billed_megapixels(output_px) - 1 + sum(billed_megapixels(pixels) for pixels in inputs_px)
    return round(first_mp * MILLI) + further * round(further_mp * MILLI)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one key used on one day (UTC) through one route. Moderated and failed jobs are counted and cost nothing."""

    day: str
    key_id: str
    key_name: str
    route: str
    pictures: int
    moderated: int
    failed: int
    cancelled: int
    input_megapixels: float
    output_megapixels: float
    credits: float
    run_s: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON and CSV."""
        return asdict(self)


def usage(
    database: Database, *, since: str | None = None, until: str | None = None, key_id: str | None = None
) -> list[Usage]:
    """Usage by day, key and route, oldest first. `since` and `until` are days, both included: 2026-11-30."""

    def ended(state: str) -> Any:  # noqa: ANN401 - an SQL expression
        return func.count().filter(METERING.c.state == state)

    query = (
        select(
            METERING.c.day,
            METERING.c.key_id,
            func.coalesce(KEYS.c.name, "").label("key_name"),
            METERING.c.route,
            func.sum(METERING.c.pictures).label("pictures"),
            ended("moderated").label("moderated"),
            ended("failed").label("failed"),
            ended("cancelled").label("cancelled"),
            func.sum(METERING.c.input_px).filter(METERING.c.state == "ready").label("input_px"),
            func.sum(METERING.c.output_px).label("output_px"),
            func.sum(METERING.c.cost_milli).label("cost_milli"),
            func.sum(METERING.c.run_s).label("run_s"),
        )
        .select_from(METERING.outerjoin(KEYS, KEYS.c.id == METERING.c.key_id))
        .group_by(METERING.c.day, METERING.c.key_id, KEYS.c.name, METERING.c.route)
        .order_by(METERING.c.day, METERING.c.key_id, METERING.c.route)
    )
    if since is not None:
        query = query.where(METERING.c.day >= since)
    if until is not None:
        query = query.where(METERING.c.day <= until)
    if key_id is not None:
        query = query.where(METERING.c.key_id == key_id)
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [
        Usage(
            day=row.day,
            key_id=row.key_id,
            key_name=row.key_name,
            route=row.route,
            pictures=int(row.pictures),
            moderated=row.moderated,
            failed=row.failed,
            cancelled=row.cancelled,
            input_megapixels=round(int(row.input_px or 0) / 1e6, 6),
            output_megapixels=round(int(row.output_px) / 1e6, 6),
            credits=int(row.cost_milli) / MILLI,
            run_s=round(row.run_s, 3),
        )
        for row in rows
    ]
