"""The `openai` package against a running service with the built-in model."""

import base64
import io
from collections.abc import Iterator

import openai
import pytest
from PIL import Image

from tests.service.serving import Served

QUICK = {"steps": 2}


@pytest.fixture(scope="module")
def client(live: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=live.key, base_url=f"{live.url}/v1", max_retries=0) as made:
        yield made


def opened(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


def file_of(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_generate_edit_and_vary(client: openai.OpenAI) -> None:
    told = client.images.generate(
        prompt="a red sphere", model="flux-2-klein-4b", size="128x128", n=1, quality="high", user="me",
        extra_body={"seed": 3, **QUICK},
    )  # fmt: skip
    assert told.data is not None
    first = opened(told.data[0].b64_json)
    assert (told.size, told.output_format, first.size, first.format) == ("128x128", "png", (128, 128), "PNG")
    mask = Image.new("RGBA", (128, 128), "black")
    mask.paste((0, 0, 0, 0), (64, 0, 128, 128))
    edited = client.images.edit(
        image=[("blob", file_of(first)), ("b.png", file_of(first))], mask=("mask.png", file_of(mask)),
        prompt="a blue cube", output_format="jpeg", size="1024x1024", extra_body=QUICK,
    )  # fmt: skip
    assert edited.data is not None
    assert (opened(edited.data[0].b64_json).format, edited.size) == ("JPEG", "128x128")
    varied = client.images.create_variation(
        image=("a.png", file_of(first)), response_format="url", size="256x256", extra_body=QUICK
    )
    assert varied.data is not None
    assert varied.data[0].url is not None
    assert varied.data[0].b64_json is None


def test_a_stream_of_partial_pictures(client: openai.OpenAI) -> None:
    events = list(
        client.images.generate(
            prompt="a red sphere", size="128x128", stream=True, partial_images=2, extra_body={"steps": 6}
        )
    )
    kinds = [event.type for event in events]
    assert kinds[-1] == "image_generation.completed"
    assert set(kinds[:-1]) == {"image_generation.partial_image"}
    assert opened(events[0].b64_json).size == opened(events[-1].b64_json).size == (128, 128)


def test_models_and_errors(client: openai.OpenAI, live: Served) -> None:
    assert {"flux-2-pro", "flux-2-max"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("flux-2-pro").owned_by == "nano"
    with pytest.raises(openai.NotFoundError) as missing:
        client.images.generate(prompt="a", model="dall-e-3")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        client.images.generate(prompt="a", size="1x1")
    assert bad.value.type == "invalid_request_error"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").models.list()
