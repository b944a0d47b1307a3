import pytest

from licht.service.keys import KeyStore
from licht.service.metering import billed_megapixels, cost_milli, reported_megapixels, usage
from licht.service.queue.records import Outcome, State
from licht.service.queue.store import JobStore
from tests.service.conftest import Clock, NewJobs


@pytest.mark.parametrize(
    ("width", "height", "billed", "reported"),
    [
        (64, 64, 1, 0.0),
        (1024, 1024, 1, 1.05),
        (1024, 1040, 2, 1.06),
        (1920, 1072, 2, 2.06),
        (1920, 1080, 2, 2.07),
        (2048, 2048, 4, 4.19),
    ],
)
def test_megapixels(width: int, height: int, billed: int, reported: float) -> None:
    assert billed_megapixels(width * height) == billed
    assert reported_megapixels(width * height) == reported


@pytest.mark.parametrize(
    ("first", "further", "output_px", "inputs_px", "milli"),
    [
        (3, 1.5, 1024 * 1024, [], 3000),
        (1.4, 0.1, 2 * 1024 * 1024, [], 1500),
        (3, 1.5, 1920 * 1072, [1920 * 1080], 7500),
        (7, 3, 2048 * 2048, [100, 100], 22000),
        (0, 0, 2048 * 2048, [100], 0),
        (1.4, 0.1, 1, [1] * 10, 2400),
    ],
)
def test_prices(first: float, further: float, output_px: int, inputs_px: list[int], milli: int) -> None:
    assert cost_milli(first, further, output_px, inputs_px) == milli


def test_usage_by_day_key_and_route(store: JobStore, new_job: NewJobs, keys: KeyStore, clock: Clock) -> None:
    other = keys.create("other").key.id
    ready, failed = Outcome(State.READY, result={}), Outcome(State.FAILED)
    plan: list[tuple[int, dict[str, object], Outcome]] = [
        (0, {}, ready),
        (0, {}, ready),
        (0, {"key_id": other}, ready),
        (0, {}, failed),
    ]
    plan += [(0, {}, Outcome(State.MODERATED)), (0, {"route": "flux-2-max"}, Outcome(State.CANCELLED))]
    plan += [(86400, {"input_px": 2_000_000}, ready)]
    for wait_s, changes, outcome in plan:
        clock.now += wait_s
        store.submit(new_job(**changes))
        claim = store.leases.claim("w")
        assert claim is not None
        clock.now += 0.5
        store.leases.finish(claim, outcome)
    rows = {(row.day, row.key_name, row.route): row for row in usage(store.database)}
    assert len(rows) == 4
    row = rows["2027-01-15", "tests", "flux-2-pro"]
    assert (row.pictures, row.failed, row.moderated, row.cancelled, row.credits) == (2, 1, 1, 0, 6.0)
    assert (row.run_s, row.output_megapixels) == (2.0, 0.008192)
    assert rows["2027-01-15", "tests", "flux-2-max"].cancelled == 1
    assert rows["2027-01-16", "tests", "flux-2-pro"].input_megapixels == 2.0
    assert [row.key_id for row in usage(store.database, key_id=other)] == [other]
    assert len(usage(store.database, since="2027-01-16")) == 1
    assert len(usage(store.database, until="2027-01-15")) == 3
