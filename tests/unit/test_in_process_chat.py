"""The harness of the runs whose pace is compared, with the installed verifiers."""

import asyncio
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest
from gpu_proof import stages

ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "tiny",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "cba"}}],
}


@pytest.fixture
def server():
    """An endpoint that answers one thing; its `asked` has the keys and bodies of what came."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(ANSWER).encode())

        def log_message(self, *_):
            pass

    asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_address[1]}/v1", asked=asked)
        server.shutdown()
        thread.join()


def test_it_is_found_as_verifiers_finds_harnesses_and_asks_once(server, monkeypatch):
    from verifiers.v1.utils.loaders import harness_class

    monkeypatch.syspath_prepend(str(stages.HARNESS))
    chat = harness_class("in-process-chat")(SimpleNamespace(id="in-process-chat"))
    task = SimpleNamespace(system_prompt="Reverse it.", prompt="abc")

    result = asyncio.run(chat.launch(SimpleNamespace(model="tiny"), None, None, server.url, "word", {}, task))

    assert (result.exit_code, result.stdout) == (0, "cba")
    messages = [{"role": "system", "content": "Reverse it."}, {"role": "user", "content": "abc"}]
    assert server.asked == [("/v1/chat/completions", "Bearer word", {"model": "tiny", "messages": messages})]
