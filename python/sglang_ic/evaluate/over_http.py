"""Running servers, one pattern each, as arms.

A server of ours says its pattern at `GET /index_cache`. Another SGLang server has no such route:
it can be measured all the same, as a pattern that is not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from sglang_ic.evaluate.arms import Arm
from sglang_ic.evaluate.scores import TokenScores
from sglang_ic.evaluate.wire import EngineError, request, token_scores
from sglang_ic.pattern import LayerPattern
from sglang_ic.pattern_text import show

CONNECT_TIMEOUT_SEC = 10
ANSWER_TIMEOUT_SEC = 3600  # a long prefill on a CPU


@dataclass(frozen=True)
class Server:
    """A server that answered."""

    name: str
    url: str
    pattern: LayerPattern | None
    index_topk: int | None
    model_path: str
    tokenizer_path: str


def connect(given: str) -> Server:
    """Ask a server who it is.

    Args:
        given: `URL` or `NAME=URL`.
    Raises:
        EngineError: no answer, or not an SGLang server.
    """
    name, equals, url = given.partition("=")
    if not equals or "/" in name:
        name, url = "", given
    url = url.rstrip("/")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise EngineError(f"--url {show(given)} is no address: write [NAME=]http://HOST:PORT")
    info = _get(url, "/model_info")
    if not isinstance(info, dict) or "model_path" not in info:
        raise EngineError(
            f"--url {show(url)} answers, but not as an SGLang server (no /model_info): "
            "give the address of one"
        )
    cache = _get(url, "/index_cache")
    pattern = None
    if isinstance(cache, dict) and "pattern" in cache:
        pattern = LayerPattern(cache["pattern"], "/index_cache")
    return Server(
        name=name or (pattern.text if pattern else urlsplit(url).netloc),
        url=url,
        pattern=pattern,
        index_topk=cache["index_topk"] if pattern else None,
        model_path=info["model_path"],
        tokenizer_path=info.get("tokenizer_path") or info["model_path"],
    )


def choose_reference(servers: Sequence[Server], reference: str) -> Server:
    """The server that the others are compared with.

    Args:
        reference: a name; or `full`, for the one server that runs all layers Full. A single server
            is its own reference.
    Raises:
        EngineError: none fits, or two have the same name.
    """
    names = [server.name for server in servers]
    for name in names:
        if names.count(name) > 1:
            raise EngineError(f"two servers are called {show(name)}: write --url NAME=URL")
    named = [server for server in servers if server.name == reference]
    full = [server for server in servers if server.pattern and not server.pattern.num_shared]
    fitting = named or (full if reference == "full" else []) or list(servers)[: len(servers) == 1]
    if len(fitting) != 1:
        raise EngineError(
            f"--reference {show(reference)}: {len(fitting) or 'no'} servers are that; "
            f"name one of {', '.join(names)}"
        )
    return fitting[0]


def arms(servers: Sequence[Server], reference: Server) -> tuple[Arm, ...]:
    """The reference first, the others in the order given."""
    ordered = [reference, *(server for server in servers if server is not reference)]
    return tuple(
        Arm(
            server.name,
            "reference" if server is reference else "pattern",
            server.pattern,
            url=server.url,
        )
        for server in ordered
    )


class OverHttp:
    """Scores samples on the arm's server."""

    def score(self, arm: Arm, input_ids: Sequence[int]) -> TokenScores:
        """Teacher-forced scores of one sample.

        Raises:
            EngineError: no answer, or an error instead of scores.
        """
        answer = _json("POST", f"{arm.url}/generate", ANSWER_TIMEOUT_SEC, json=request(input_ids))
        if isinstance(answer, dict) and "error" in answer:
            error = answer["error"]
            text = error.get("message", error) if isinstance(error, dict) else error
            raise EngineError(f"--url {show(arm.url)} refuses a request: {show(str(text))}")
        return token_scores(answer, input_ids)

    def close(self) -> None:
        """Nothing was started."""


def _get(url: str, path: str) -> Any:
    return _json("GET", url + path, CONNECT_TIMEOUT_SEC)


def _json(method: str, url: str, timeout_sec: float, **kwargs: Any) -> Any:
    """The decoded answer, whatever its status; None when it is not JSON."""
    try:
        answer = requests.request(method, url, timeout=(CONNECT_TIMEOUT_SEC, timeout_sec), **kwargs)
    except requests.RequestException as error:
        raise EngineError(
            f"--url {show(url)}: no answer ({type(error).__name__}): "
            "start the server, or correct the address"
        ) from error
    try:
        return answer.json()
    except ValueError:
        return None
