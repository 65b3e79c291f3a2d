"""Requests against a server in this process that streams as SGLang does."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sglang_ic.latency import client
from sglang_ic.latency.client import RequestError

WAIT_SEC, STEP_SEC = 0.3, 0.05
TOGETHER = threading.Barrier(4, timeout=60)


class Handler(BaseHTTPRequestHandler):
    """The first input id decides how it answers."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["input_ids"][0] == 500:
            self.send_error(500, "broken")
            return
        if body["input_ids"][0] == 600:
            TOGETHER.wait()  # for three others
        self.send_response(200)
        self.end_headers()
        wanted = body["sampling_params"]["max_new_tokens"]
        time.sleep(WAIT_SEC)
        for number in range(wanted - (body["input_ids"][0] == 501)):
            time.sleep(STEP_SEC if number else 0)
            meta = {"completion_tokens": number + 1, "cached_tokens": 64}
            self.say({"output_ids": list(range(number + 1)), "meta_info": meta})
            self.say({"output_ids": [], "meta_info": meta})  # nothing new
        if body["input_ids"][0] == 502:
            self.say({"error": {"message": "no room"}})
        self.wfile.write(b"data: [DONE]\n\n")

    def say(self, value):
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_tokens_are_stamped_when_they_arrive(url):
    (stream,) = client.generate(url, [[1, 2]], 5)
    assert [count for _, count in stream.arrivals] == [1, 2, 3, 4, 5]
    assert stream.ttft_sec >= WAIT_SEC
    span = stream.arrivals[-1][0] - stream.arrivals[0][0]
    assert stream.ttft_sec + span >= WAIT_SEC + 4 * STEP_SEC
    assert span >= 2 * STEP_SEC  # a busy machine may read the first one late
    assert stream.cached_tokens == 64


def test_requests_of_a_batch_run_at_the_same_time(url):
    assert len(client.generate(url, [[600]] * 4, 2)) == 4


@pytest.mark.parametrize("first, words", [(500, "500"), (501, "gave 2 of 3"), (502, "no room")])
def test_an_answer_that_is_none_is_refused(url, first, words):
    with pytest.raises(RequestError, match=words):
        client.generate(url, [[first]], 3)


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(RequestError, match="does not answer"):
        client.generate("http://127.0.0.1:9", [[1]], 1)


def test_prompts_are_the_same_for_the_same_seed_and_inside_the_vocabulary():
    ids = client.prompt("a", 1000, 40)
    assert ids == client.prompt("a", 1000, 40) != client.prompt("b", 1000, 40)
    assert client.FIRST_ID <= min(ids) and max(ids) < 40
