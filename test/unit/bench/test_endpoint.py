"""What a server is asked, with which key, and what is made of its answers."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sglang_ic.bench import endpoint
from sglang_ic.bench.endpoint import EndpointError

METRICS = """\
# HELP sglang:index_cache_indexer_run_total Indexer layer-passes run.
# TYPE sglang:index_cache_indexer_run_total counter
sglang:index_cache_indexer_run_total{model_name="m",dp_rank="0"} 100.0
sglang:index_cache_indexer_run_total{model_name="m",dp_rank="1"} 1.6e+01
sglang:index_cache_indexer_skipped_total{model_name="m",dp_rank="0"} 300.0
sglang:index_cache_indexer_skipped_total{model_name="m",dp_rank="1"} 48.0
"""


@pytest.fixture
def serve(monkeypatch):
    """serve({"/path": (status, text)}) -> its URL, and the headers of every request."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("API_KEY", raising=False)
    running = []

    def start(told):
        seen = []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                seen.append(dict(self.headers))
                status, text = told.get(self.path, (404, "{}"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

        running.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_address[1]}", seen

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_counts_are_summed_over_schedulers(serve):
    counts = [{"indexer_run_total": 10, "indexer_skipped_total": 30}] * 2
    url, _ = serve({"/index_cache": (200, json.dumps({**counts[0], "schedulers": counts}))})
    assert endpoint.indexer_counts(url) == (20, 60)


def test_counts_come_from_metrics_where_that_alone_is_served(serve):
    url, _ = serve({"/metrics": (200, METRICS)})
    assert endpoint.indexer_counts(url) == (116, 348)


def test_a_server_that_counts_nothing_says_so(serve):
    assert endpoint.indexer_counts(serve({})[0]) is None
    other = {"/metrics": (200, "sglang:num_running_reqs 3.0\n")}
    assert endpoint.indexer_counts(serve(other)[0]) is None


@pytest.mark.parametrize("answer", ["{}", "[]", '{"schedulers": [{}]}', '{"schedulers": null}'])
def test_an_answer_without_counts_is_one_line(serve, answer):
    url, _ = serve({"/index_cache": (200, answer)})
    with pytest.raises(EndpointError, match="/index_cache does not hold the indexers' counts"):
        endpoint.indexer_counts(url)


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({}, None),
        ({"OPENAI_API_KEY": "k"}, "Bearer k"),
        ({"API_KEY": "Bearer k2"}, "Bearer k2"),
        ({"OPENAI_API_KEY": "k", "API_KEY": "k2"}, "Bearer k"),
    ],
)
def test_every_question_holds_the_key_of_the_environment(serve, monkeypatch, variables, header):
    models = json.dumps({"data": [{"id": "m"}]})
    url, seen = serve({"/v1/models": (200, models), "/health_generate": (200, "")})
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    endpoint.identify(url)
    endpoint.indexer_counts(url)
    assert endpoint.is_ready(url)
    assert len(seen) == 7
    assert {headers.get("Authorization") for headers in seen} == {header}


def test_a_server_that_wants_a_key_is_told_how_to_give_it(serve):
    url, _ = serve({"/v1/models": (401, "{}")})
    with pytest.raises(EndpointError, match="401.*set OPENAI_API_KEY"):
        endpoint.identify(url)
