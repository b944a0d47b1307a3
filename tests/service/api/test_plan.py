import pytest

from licht.service.queue.forecast import Rate, fit
from licht.service.queue.register import About
from tests.service.api.conftest import Build, Service
from tests.service.api.pictures import encoded

BODY = {"prompt": "a red ball", "width": 128, "height": 64}


def test_a_plan_costs_nothing_and_says_what_the_job_will_cost(service: Service) -> None:
    body = {**BODY, "model": "flux-2-max", "num": 2, "input_image": encoded()}
    plan = service.client.post("/v1/plan", json=body).json()
    assert service.parts.store.recent(service.key_id) == []
    job = service.client.post("/v1/jobs", json=body).json()
    assert plan["cost"] == 2 * job["cost"] == 20
    assert (plan["width"], plan["height"], plan["num"], plan["output_mp"]) == (128, 64, 2, 0.01)
    assert (plan["seconds"], plan["wait_seconds"], plan["jobs_ahead"], plan["weights"]) == (None, None, None, None)
    assert plan["credits_left"] is None


def test_times_come_from_the_workers_first_picture_then_from_its_jobs(service: Service) -> None:
    about = About(4, None, takes_guidance=False, max_references=4, width=128, height=64, fixed_s=1.0, step_s=0.5)
    service.parts.register.enter("w", "nano", "Apache-2.0")
    service.parts.register.ready("w", about)
    plan = service.client.post("/v1/plan", json={**BODY, "guidance": 3}).json()
    assert (plan["seconds"], plan["steps"], plan["guidance"], plan["measured_jobs"]) == (3.0, 4, None, 0)
    assert (plan["weights"], plan["wait_seconds"], plan["jobs_ahead"]) == ("nano", 0.0, 0)
    assert service.client.post("/v1/plan", json={**BODY, "model": "flux-2-max"}).json()["steps"] == 8
    service.client.post("/v1/jobs", json={**BODY, "steps": 4})
    waiting = service.client.post("/v1/plan", json=BODY).json()
    assert (waiting["wait_seconds"], waiting["jobs_ahead"]) == (3.0, 1)
    service.work()
    assert service.client.post("/v1/plan", json=BODY).json()["measured_jobs"] == 1


def test_what_could_not_be_queued_is_an_error_here_too(build: Build) -> None:
    service = build()
    for body in ({"prompt": "a", "width": 10}, {"prompt": "a", "mask": encoded()}, {"prompt": "a\x00"}):
        planned, queued = (service.client.post(path, json=body) for path in ("/v1/plan", "/v1/jobs"))
        assert planned.status_code == queued.status_code == 422
        assert planned.json() == queued.json()


def test_a_line_through_what_was_measured() -> None:
    assert fit([]) is None
    assert fit([(2.0, 3.0)]) == Rate(0.0, 1.5, 1)
    line = fit([(1.0, 3.0), (2.0, 5.0), (4.0, 9.0)])
    assert line is not None
    assert (line.fixed_s, line.per_work_s, line.seconds(10)) == pytest.approx((1.0, 2.0, 21.0))
    # a line that would begin below zero, or fall, is no answer
    assert fit([(1.0, 1.0), (3.0, 5.0)]) == Rate(0.0, 1.5, 2)
    falling = fit([(1.0, 5.0), (3.0, 1.0)])
    assert falling == Rate(3.0, 0.0, 2)
