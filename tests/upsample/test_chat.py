import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from licht.core.errors import EndpointFailed, InvalidRequest, NotAvailable
from licht.upsample.chat import ChatUpsampler
from licht.upsample.choose import Own, open_upsampler
from licht.upsample.local import LocalUpsampler
from tests.support.pictures import picture


class Chat:
    """A stand-in that speaks the OpenAI chat protocol."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []
        self.status = 200
        self.body: Any = {"choices": [{"message": {"role": "assistant", "content": "A cat."}}]}
        self.delay_s = 0.0
        self.drips = False


@pytest.fixture
def chat() -> Iterator[Chat]:
    made = Chat()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.asked.append((self.path, self.headers.get("Authorization"), body))
            time.sleep(made.delay_s)
            data = made.body if isinstance(made.body, bytes) else json.dumps(made.body).encode()
            self.send_response(made.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for at in range(0, len(data), 1 if made.drips else len(data)):
                time.sleep(0.05 if made.drips else 0.0)
                with suppress(OSError):  # the caller has gone
                    self.wfile.write(data[at : at + 1] if made.drips else data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield made
    server.shutdown()
    server.server_close()


def test_the_protocol(chat: Chat) -> None:
    for url in (chat.url, chat.url + "/", chat.url + "/chat/completions"):
        assert ChatUpsampler(url, "small", "secret").answer("be short", "a cat", ()) == "A cat."
    path, key, body = chat.asked[-1]
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert body == {
        "model": "small",
        "messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "a cat"}],
        "temperature": 0.15,
        "max_tokens": 512,
    }
    assert "secret" not in repr(ChatUpsampler(chat.url, "small", "secret"))


def test_references_go_along(chat: Chat) -> None:
    chat.body["choices"][0]["message"]["content"] = [{"type": "text", "text": "A "}, {"type": "text", "text": "cat."}]
    assert ChatUpsampler(chat.url, "small").answer("s", "x", [picture(), picture()]) == "A cat."
    _, key, body = chat.asked[0]
    shown, text = body["messages"][1]["content"]
    assert key is None
    assert text == {"type": "text", "text": "x"}
    kind, _, data = shown["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, {"choices": []}),
        (200, {"choices": [{"message": {"content": None}}]}),
        (200, {"choices": [{"message": {"content": [{"type": "image"}]}}]}),
        (200, [1]),
        (500, {"choices": [{"message": {"content": "A cat."}}]}),
        (401, {"error": {"message": "no key"}}),
    ],
)
def test_garbage_is_one_line(chat: Chat, status: int, body: object) -> None:
    chat.status, chat.body = status, body
    if body == {"choices": [{"message": {"content": [{"type": "image"}]}}]}:
        assert ChatUpsampler(chat.url, "small").answer("s", "x", ()) == ""  # which counts as a lost description
        return
    with pytest.raises(EndpointFailed, match=f"answers with HTTP {status} and without the text") as caught:
        ChatUpsampler(chat.url, "small").answer("s", "x", ())
    assert caught.value.exit_code == 2


def test_an_endpoint_that_is_slow_absent_or_endless_is_one_line(chat: Chat) -> None:
    chat.delay_s = 1.0
    with pytest.raises(EndpointFailed, match=r"has not answered within 0\.1 s"):
        ChatUpsampler(chat.url, "small", timeout_s=0.1).answer("s", "x", ())
    with pytest.raises(EndpointFailed, match="cannot be reached"):
        ChatUpsampler("http://127.0.0.1:9", "small").answer("s", "x", ())
    chat.delay_s, chat.body = 0.0, b"x" * (2**20 + 1)
    with pytest.raises(EndpointFailed, match="is larger than"):
        ChatUpsampler(chat.url, "small").answer("s", "x", ())
    with pytest.raises(InvalidRequest, match="is no address of a chat endpoint"):
        ChatUpsampler("file:///etc/passwd", "small")


def test_an_answer_that_drips_in_ends_in_time_and_a_key_that_no_header_holds_is_one_line(chat: Chat) -> None:
    chat.drips = True
    with pytest.raises(EndpointFailed, match=r"has not answered within 0\.3 s"):
        ChatUpsampler(chat.url, "small", timeout_s=0.3).answer("s", "x", ())
    with pytest.raises(EndpointFailed, match="check the address and LICHT_UPSAMPLE_KEY"):
        ChatUpsampler(chat.url, "small", "schl\u00fcssel").answer("s", "x", ())


def test_what_is_named_is_opened(chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICHT_UPSAMPLE_KEY", "secret")
    own = Own(tmp_path / "own" / "text_encoder", tmp_path / "own" / "tokenizer", "cpu")
    assert open_upsampler(chat.url, "small", own, 1) == ChatUpsampler(chat.url, "small", "secret")
    for named, folder in ((None, "own"), (tmp_path / "dev", "dev"), (str(tmp_path / "dev"), "dev")):
        with pytest.raises(NotAvailable, match=f"{folder}/text_encoder is no language model that can upsample"):
            open_upsampler(named, "default", own, 1)
        config = tmp_path / folder / "text_encoder" / "config.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text('{"model_type": "mistral3"}')
        assert isinstance(open_upsampler(named, "default", own, 1), LocalUpsampler)
        config.unlink()
