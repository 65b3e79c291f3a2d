"""Questions to a server over HTTP: which model it serves, how far, and what its indexers did.

The counters come from `GET /index_cache`, which needs no `--enable-metrics`, or from the same
totals in `GET /metrics`, where only that is let through. A server without either (upstream's own)
has none, and says so by `None`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import requests

TIMEOUT_SEC = 60
METRIC = "sglang:index_cache_indexer_{}_total"


class EndpointError(RuntimeError):
    """A server that does not answer as SGLang does; the message is one line."""


@dataclass(frozen=True)
class Identity:
    """Who answers at a URL."""

    model: str  # the name that requests use
    tokenizer: str | None
    max_context_tokens: int | None
    max_total_tokens: int | None  # the KV pool
    version: str | None
    pattern: str | None  # F/S text; None where the server does not tell
    source: str | None  # of the pattern

    @property
    def longest_tokens(self) -> int | None:
        """The longest request, prompt and answer, that the server can take."""
        known = [n for n in (self.max_context_tokens, self.max_total_tokens) if n]
        return min(known, default=None)


def identify(url: str) -> Identity:
    """Ask the server at `url` for its model, limits and pattern.

    Raises:
        EndpointError: nothing answers, or it is not an SGLang server.
    """
    models = _get(url, "/v1/models")
    info = _get(url, "/model_info", optional=True) or {}
    server = _get(url, "/server_info", optional=True) or {}
    cache = _get(url, "/index_cache", optional=True) or {}
    try:
        served = models["data"][0]
        return Identity(
            model=served["id"],
            tokenizer=info.get("tokenizer_path") or info.get("model_path"),
            max_context_tokens=served.get("max_model_len"),
            max_total_tokens=server.get("max_total_num_tokens"),
            version=server.get("version"),
            pattern=cache.get("pattern"),
            source=cache.get("source"),
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise EndpointError(f"{url} does not list a model at /v1/models: is it SGLang?") from error


def indexer_counts(url: str) -> tuple[int, int] | None:
    """Indexer layer-passes (run, skipped) since the server started, over all its schedulers.

    Raises:
        EndpointError: it does not answer, or not with counts.
    """
    info = _get(url, "/index_cache", optional=True)
    if info is None:
        return _counts_of_metrics(url)
    try:
        schedulers = info.get("schedulers", [info])
        return (
            sum(one["indexer_run_total"] for one in schedulers),
            sum(one["indexer_skipped_total"] for one in schedulers),
        )
    except (KeyError, TypeError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise EndpointError(
            f"{url}/index_cache does not hold the indexers' counts ({said})"
        ) from error


def _counts_of_metrics(url: str) -> tuple[int, int] | None:
    """The two counters of `/metrics`, summed over their labels; None if one is not there."""
    answer = _ask(url, "/metrics")
    if answer.status_code != 200:
        return None  # no --enable-metrics
    found = [
        re.findall(rf"^{METRIC.format(name)}(?:{{.*}})? (\S+)", answer.text, re.MULTILINE)
        for name in ("run", "skipped")
    ]
    if not all(found):
        return None
    run, skipped = (sum(int(float(value)) for value in values) for values in found)
    return run, skipped


def is_ready(url: str) -> bool:
    """Whether the server has loaded its model and generates."""
    try:
        return _ask(url, "/health_generate").status_code == 200
    except EndpointError:
        return False


def auth_headers() -> dict[str, str]:
    """The key from the environment, as upstream's load generator sends it with every request."""
    if key := os.environ.get("OPENAI_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if key := os.environ.get("API_KEY"):
        return {"Authorization": key}
    return {}


def _get(url: str, path: str, *, optional: bool = False) -> Any:
    """The JSON answer of a route; None if `optional` and the server has no such route."""
    answer = _ask(url, path)
    if answer.status_code == 404 and optional:
        return None
    if answer.status_code != 200:
        hint = ": set OPENAI_API_KEY to its key" if answer.status_code == 401 else ""
        raise EndpointError(f"{url}{path} answers {answer.status_code} {answer.reason}{hint}")
    try:
        return answer.json()
    except ValueError as error:
        raise EndpointError(f"{url}{path} does not answer in JSON: is it SGLang?") from error


def _ask(url: str, path: str) -> requests.Response:
    try:
        return requests.get(url + path, headers=auth_headers(), timeout=TIMEOUT_SEC)
    except requests.RequestException as error:
        raise EndpointError(f"{url} does not answer ({reason(error)})") from error


def reason(error: Exception) -> str:
    """A requests error in a few words, such as 'Connection refused' or '400 Bad Request'."""
    text = str(error)
    for known in ("Connection refused", "timed out", "Name or service not known", "No route"):
        if known in text:
            return known
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"{status} {error.response.reason}" if status else type(error).__name__
