"""`GET /index_cache`: the pattern this server runs, and what it saves."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException

router = APIRouter()


@router.get("/index_cache")
async def index_cache() -> dict[str, Any]:
    """Pattern, owners, source, index-K bytes and counters of each data-parallel scheduler.

    The first scheduler's values are at the top level, since all run the same pattern;
    ``schedulers`` lists every one of them.
    """
    # Imported late: http_server imports this module while it is itself being imported.
    from sglang.srt.entrypoints.http_server import _global_state

    states = await _global_state.tokenizer_manager.get_internal_state()
    infos = [state["index_cache"] for state in states if "index_cache" in state]
    if not infos:
        raise HTTPException(404, "this model has no DSA indexer that sglang_ic looks after")
    return {**infos[0], "schedulers": infos}
