"""A server with SGLang's scoring routes and made-up predictions, in a thread of the test."""

import contextlib
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VOCAB_SIZE = 300


@contextlib.contextmanager
def serving(routes: dict) -> Iterator[str]:
    """The address of a server; `routes`: path -> JSON value, text, or function of the body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            found = routes.get(self.path)
            status = 404 if found is None else 200
            found = found(body) if callable(found) else found
            payload = found if isinstance(found, str) else json.dumps(found)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(payload.encode())

        do_POST = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sglang(model_path: str, pattern: str | None, index_topk: int, probability: float) -> dict:
    """Routes of a server that gives the true token `probability`, the next id what is left."""
    routes = {
        "/model_info": {"model_path": model_path, "tokenizer_path": model_path},
        "/generate": lambda body: _scored(body["input_ids"], probability),
    }
    if pattern is not None:
        routes["/index_cache"] = {"pattern": pattern, "index_topk": index_topk}
    return routes


def _scored(ids: list[int], probability: float) -> dict:
    both = (math.log(probability), math.log(1 - probability))
    tokens = [(None, ids[0], None)] + [(both[0], token, None) for token in ids[1:]]
    top = [None] + [
        sorted(
            [(both[0], token, None), (both[1], (token + 1) % VOCAB_SIZE, None)],
            reverse=True,
        )
        for token in ids[1:]
    ]
    return {"meta_info": {"input_token_logprobs": tokens, "input_top_logprobs": top}}
