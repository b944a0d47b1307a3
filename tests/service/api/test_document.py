"""The OpenAPI document, tried by schemathesis: whatever it allows and whatever it forbids, nothing is a defect."""

import re
from collections import Counter
from contextlib import suppress
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from licht.service.keys import Scope
from tests.service.api.conftest import Build, Service

# They wait for a picture, or stream until a job has ended; without a worker that is for ever.
WAITING: Final = re.compile(r"/v1/images/.*|.*/events")
EXAMPLES: Final = 12


@pytest.fixture
def service(build: Build) -> Service:
    """Nothing is drawn here, and nothing outside may be reached."""
    made = build(
        fetch__enabled=False,
        keys__active_limit=100_000,
        verify__wait_s=0.01,
        worker__policy="off",
        queue__heartbeat_s=1000,
        queue__lease_s=3000,
    )
    # without a worker, 503 would be the right answer to whether it is ready
    made.parts.register.enter("w", "fake", "Apache-2.0")
    made.parts.register.ready("w")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_nothing_that_is_sent_is_a_defect(service: Service, mode: GenerationMode) -> None:
    headers = {"x-key": service.parts.keys.create("all", tuple(Scope)).text, "host": "localhost"}
    document = schemathesis.openapi.from_asgi("/openapi.json", service.app, headers=headers)
    answers: Counter[int] = Counter()
    for found in document.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if WAITING.fullmatch(operation.path):
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def check(case: Any) -> None:  # noqa: ANN401 - its type depends on the kind of document
            response = case.call(headers=headers)
            # 503 is in the document: something that is not configured, or not there at the moment
            assert response.status_code < 500 or response.status_code == 503, (case, response.text)
            answers[response.status_code] += 1

        # nothing can be wrong about a request that has neither a body nor parameters
        with suppress(Unsatisfiable):
            check()
    # it got through to the routes, and was turned away by them too
    assert answers[200] > 20
    assert answers[422] > 50
    assert answers[421] == 0
    # links that nobody has signed
    assert answers[403] <= EXAMPLES
