import hashlib
import hmac
import json

import pytest
from sqlalchemy import update

from licht.service.database.tables import WEBHOOKS
from licht.service.fetch import Answer
from licht.service.queue.records import Outcome, State
from licht.service.queue.store import JobStore
from licht.service.webhooks import Outbox, body, headers, standard_signature
from tests.service.conftest import Clock, NewJobs

SCHEDULE_S = (0.0, 5.0, 300.0)


@pytest.fixture
def outbox(store: JobStore, clock: Clock) -> Outbox:
    return Outbox(store.database, SCHEDULE_S, 60.0, clock)


def end(store: JobStore, new_job: NewJobs, outcome: Outcome) -> str:
    new = new_job(webhook_url="https://example.org/hook", webhook_secret="hush")
    store.submit(new)
    claim = store.leases.claim("w")
    assert claim is not None
    store.leases.finish(claim, outcome)
    return new.id


READY = Outcome(State.READY, result={"seed": 7, "blob": "b"})


def test_the_published_test_vector() -> None:
    signed = standard_signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_headers_of_all_accounts() -> None:
    made = headers("msg_1", "hush", b"{}", 5)
    assert made["X-Webhook-Secret"] == "hush"
    assert made["X-BFL-Signature"] == "sha256=" + hmac.new(b"hush", b"{}", hashlib.sha256).hexdigest()
    assert (made["webhook-id"], made["webhook-timestamp"]) == ("msg_1", "5")
    assert made["webhook-signature"] == standard_signature("hush", "msg_1", 5, b"{}")
    unsigned = headers("msg_1", None, b"{}", 5)
    assert not {"X-Webhook-Secret", "X-BFL-Signature", "webhook-signature"} & set(unsigned)


def test_bodies(store: JobStore, new_job: NewJobs, outbox: Outbox) -> None:
    job_id = end(store, new_job, READY)
    (event,) = outbox.due()
    told = json.loads(body(event, "http://link", "words"))
    assert told["id"] == told["task_id"] == job_id
    assert (told["status"], told["progress"], told["result"]["seed"]) == ("SUCCESS", 1.0, 7)
    assert (told["result"]["sample"], told["result"]["prompt"]) == ("http://link", "a red sphere")
    assert told["result"]["duration"] == told["result"]["end_time"] - told["result"]["start_time"]
    assert json.loads(body(event, "http://link", "bfl"))["status"] == "Ready"
    end(store, new_job, Outcome(State.MODERATED, error_code="content_moderated", error="no"))
    (event,) = outbox.due()
    told = json.loads(body(event, None, "words"))
    assert (told["status"], told["error"], told["message"]) == ("FAILED", "content_moderated", "no")
    assert json.loads(body(event, None, "bfl"))["status"] == "Content Moderated"


def test_delivery_is_repeated_with_growing_pauses(
    store: JobStore, new_job: NewJobs, outbox: Outbox, clock: Clock
) -> None:
    end(store, new_job, READY)
    ids, state = set(), ""
    for attempt, answer in enumerate((None, Answer(500, None), Answer(302, None)), start=1):
        (event,) = outbox.due()
        assert outbox.due() == []
        assert event.attempts == attempt
        ids.add(event.id)
        state = outbox.report(event, answer)
        if attempt < len(SCHEDULE_S):
            assert state == "pending"
            clock.now += SCHEDULE_S[attempt] - 0.1
            assert outbox.due() == []
            clock.now += 0.2 + SCHEDULE_S[attempt] * 0.1
    assert state == "given_up"
    assert len(ids) == 1
    clock.now += 1e6
    assert outbox.due() == []


@pytest.mark.parametrize(("status", "state"), [(200, "delivered"), (204, "delivered"), (410, "given_up")])
def test_answers_that_end_it(
    store: JobStore, new_job: NewJobs, outbox: Outbox, clock: Clock, status: int, state: str
) -> None:
    end(store, new_job, READY)
    (event,) = outbox.due()
    assert outbox.report(event, Answer(status, None)) == state
    assert outbox.counts() == {state: 1}
    clock.now += 1e6
    assert outbox.due() == []


def test_retry_after_is_honoured_within_reason(store: JobStore, new_job: NewJobs, outbox: Outbox, clock: Clock) -> None:
    end(store, new_job, READY)
    (event,) = outbox.due()
    outbox.report(event, Answer(429, 100.0))
    clock.now += 99
    assert outbox.due() == []
    clock.now += 2
    (event,) = outbox.due()
    outbox.report(event, Answer(429, 1e6))
    clock.now += 331
    assert len(outbox.due()) == 1


def test_a_sender_that_dies_delays_and_loses_nothing(
    store: JobStore, new_job: NewJobs, outbox: Outbox, clock: Clock
) -> None:
    end(store, new_job, READY)
    (first,) = outbox.due()
    clock.now += 61
    (second,) = outbox.due()
    assert (second.id, second.attempts) == (first.id, 2)
    with store.database.write() as connection:
        connection.execute(update(WEBHOOKS).values(state="delivered"))
    assert outbox.due() == []
