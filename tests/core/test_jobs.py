import json

import pytest

from licht.core.errors import InvalidRequest
from licht.core.jobs import Job, JobImage, JobLora
from licht.core.request import Role


def test_everything_can_be_said_in_a_line() -> None:
    job = Job.from_line(
        '{"prompt": {"scene": "a cat"}, "name": "cat-1", "images": ["a.png", {"path": "b.png", "role": "style", '
        '"strength": 1.5}], "start": "s.png", "strength": 0.5, "mask": "m.png", "extend": "left=16", "size": "64x64", '
        '"seed": 3, "num": 2, "steps": 4, "guidance": 3, "loras": ["l", {"path": "m", "strength": -1}], "finish": "film"}'
    )
    assert job.prompt_text == '{"scene": "a cat"}'
    assert job.references == (JobImage(path="a.png"), JobImage(path="b.png", role=Role.STYLE, strength=1.5))
    assert job.adapters == (JobLora(path="l"), JobLora(path="m", strength=-1))
    assert (job.seed, job.num, job.steps, job.guidance) == (3, 2, 4, 3)
    assert Job.from_line('{"prompt": "x"}') == Job(prompt="x")
    assert job.stems(7) == ["cat-1-1", "cat-1-2"]
    assert Job(prompt="x").stems(7) == ["0007"]


@pytest.mark.parametrize(
    ("line", "message", "field"),
    [
        ("a cat", "the line is not JSON (Expecting value at column 1)", None),
        ("[" * 100_000, "the line is not JSON", None),
        ('["a cat"]', "must be a JSON object", None),
        ("{}", "prompt: field required", "prompt"),
        ('{"prompt": "x", "sede": 1}', "sede: is no field of a job", "sede"),
        ('{"prompt": "x", "seed": -1}', "seed: input should be greater than or equal to 0", "seed"),
        ('{"prompt": "x", "seed": "1"}', "seed: input should be a valid integer", "seed"),
        ('{"prompt": "x", "num": 65}', "num: ", "num"),
        ('{"prompt": "x", "strength": 0}', "strength: input should be greater than 0", "strength"),
        ('{"prompt": "x", "name": "../x"}', "name: a name begins with a letter or a digit", "name"),
        ('{"prompt": "x", "seed": 1, "seed": 2}', "seed: is given twice; keep one of them", "seed"),
        ('{"prompt": {"scene": "x", "scene": "y"}}', "scene: is given twice; keep one of them", "scene"),
        ('{"prompt": "x", "finish": "wax"}', "finish: ", "finish"),
        ('{"prompt": "x", "guidance": NaN}', "guidance: ", "guidance"),
    ],
)
def test_a_mistake_names_its_field(line: str, message: str, field: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Job.from_line(line)
    assert message in caught.value.message
    assert caught.value.field == field
    assert json.dumps(caught.value.message)
