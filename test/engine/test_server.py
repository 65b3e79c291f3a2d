"""The server as a user meets it: the bundled model over HTTP, on CPU. Needs `make setup`."""

import re

import openai
import pytest
from _server import running

from sglang_ic.demo.documents import documents

pytestmark = pytest.mark.engine

# 16 x index_topk (128) and more: below index_topk every pattern is the same by construction.
(DOCUMENT,) = documents("test", length=2200, count=1)
QUESTION = next(answer for answer in DOCUMENT.answers if answer.task == "multi_key")
LONG_TEXT = DOCUMENT.text[: QUESTION.start]
ANSWER = DOCUMENT.text[QUESTION.start : QUESTION.end]
DEFAULT_PATTERN = "FFFSFFFSFFFSFFSS"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("server"), "--enable-metrics") as one:
        yield one


def generate(server, text, max_new_tokens=8):
    return server.post(
        "/generate",
        {
            "text": text,
            "sampling_params": {"max_new_tokens": max_new_tokens, "temperature": 0},
        },
    )


def test_generate_answers_a_long_prompt_the_same_way_from_the_cache(server):
    first = generate(server, LONG_TEXT)
    again = generate(server, LONG_TEXT)
    assert first["meta_info"]["prompt_tokens"] >= 16 * 128
    assert first["meta_info"]["completion_tokens"] == 8
    assert again["meta_info"]["cached_tokens"] > 0
    assert again["text"] == first["text"]
    assert first["text"].startswith(ANSWER), "the document says so, beyond what a window would see"


def test_openai_client_completes_and_chats(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    model = client.models.list().data[0].id
    text = client.completions.create(model=model, prompt="Once", max_tokens=6, temperature=0)
    assert text.usage.completion_tokens == 6
    asked = [{"role": "user", "content": LONG_TEXT}]
    chat = client.chat.completions.create(model=model, messages=asked, max_tokens=6, temperature=0)
    assert chat.choices[0].message.content == ANSWER
    parts = client.chat.completions.create(
        model=model, messages=asked, max_tokens=6, temperature=0, stream=True
    )
    streamed = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert streamed == chat.choices[0].message.content


def test_completions_stream_over_plain_http(server):
    body = {"model": "m", "prompt": "Once", "max_tokens": 4, "temperature": 0}
    whole = server.post("/v1/completions", body)["choices"][0]["text"]
    chunks = server.stream("/v1/completions", {**body, "stream": True})
    assert len(chunks) > 1
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole


def test_index_cache_route_tells_the_pattern(server):
    info = server.get("/index_cache")
    assert info["pattern"] == DEFAULT_PATTERN
    assert (info["num_full"], info["num_shared"]) == (11, 5)
    assert info["owners"] == [0, 1, 2, 2, 4, 5, 6, 6, 8, 9, 10, 10, 12, 13, 13, 13]
    assert info["source"] == "default of the bundled model"
    assert info["index_topk"] == 128


def test_shared_layers_hold_no_index_k(server):
    info = server.get("/index_cache")
    sizes = info["index_k_bytes_per_layer"]
    full = [size for size, role in zip(sizes, DEFAULT_PATTERN, strict=True) if role == "F"]
    shared = [size for size, role in zip(sizes, DEFAULT_PATTERN, strict=True) if role == "S"]
    assert min(full) == max(full) > 0
    assert set(shared) == {0}
    assert info["index_k_bytes_saved"] == 5 * full[0]


def test_server_info_tells_the_same(server):
    shown = server.get("/server_info")["internal_states"][0]["index_cache"]
    assert shown["pattern"] == server.get("/index_cache")["pattern"]


def test_metrics_count_what_the_scheduler_counts(server):
    before = server.get("/index_cache")
    # A fresh prompt of one chunk: 1 prefill pass, then a decode pass per further token. With the
    # overlap scheduler one more decode pass may be under way when the last token is known.
    generate(server, "A prompt that nothing has cached before: zebra.", max_new_tokens=10)
    after = server.get("/index_cache")
    run = after["indexer_run_total"] - before["indexer_run_total"]
    skipped = after["indexer_skipped_total"] - before["indexer_skipped_total"]
    assert run in (11 * 10, 11 * 11)
    assert skipped * 11 == run * 5
    assert server.metric("sglang:index_cache_indexer_run_total") == after["indexer_run_total"]
    assert (
        server.metric("sglang:index_cache_indexer_skipped_total") == after["indexer_skipped_total"]
    )
    assert server.metric("sglang:index_cache_full_layers") == 11
    assert server.metric("sglang:index_cache_shared_layers") == 5
    info = re.search(r"sglang:index_cache_pattern_info\{(.*)\} 1.0", server.get("/metrics"))
    assert f'pattern="{DEFAULT_PATTERN}"' in info[1]


def test_the_resolved_pattern_is_one_line_of_the_log(server):
    lines = [line for line in server.log.read_text().splitlines() if "IndexCache pattern" in line]
    assert len(lines) == 1
    assert f"{DEFAULT_PATTERN} from default of the bundled model: 11 Full and 5 Shared" in lines[0]
