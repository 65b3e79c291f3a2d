"""Flags that clash with a pattern, each refused with its own words; pure Python."""

import pytest

from sglang_ic.server.compat import ServerFacts, refusal

PLAIN = ServerFacts(
    device="cuda",
    two_batch_overlap=False,
    torch_compile=False,
    prefill_graph="breakable",
    decode_graph="full",
    pp_size=1,
    speculative=False,
    hierarchical_cache=False,
    hisparse=False,
    disaggregation=False,
)
SHARED = {
    "pattern": "FSFS",
    "source": "config.json",
    "num_shared": 2,
    "num_candidate": 0,
    "build": "pattern",
}
FULL = {**SHARED, "pattern": "FFFF", "source": "default", "num_shared": 0}
CANDIDATE = {**SHARED, "pattern": "FCCC", "num_shared": 0, "num_candidate": 3}
BUILD_ALL = {**FULL, "build": "all"}

CLASHES = [
    ({"device": "hip"}, "device 'hip'"),
    ({"two_batch_overlap": True}, "--enable-two-batch-overlap .* FSFS"),
    ({"torch_compile": True}, "--enable-torch-compile .* FSFS"),
    ({"prefill_graph": "tc_piecewise"}, "tc_piecewise"),
]
BUILD_ALL_CLASHES = [
    ({"pp_size": 2}, "--pp-size"),
    ({"decode_graph": "full"}, "decode CUDA graphs"),
    ({"prefill_graph": "breakable"}, "prefill CUDA graphs"),
    ({"speculative": True}, "speculative decoding"),
    ({"hierarchical_cache": True}, "--enable-hierarchical-cache"),
    ({"hisparse": True}, "--enable-hisparse"),
    ({"disaggregation": True}, "--disaggregation-mode"),
]


CANDIDATE_CLASHES = [
    *((change, words.replace("FSFS", "FCCC")) for change, words in CLASHES),
    ({"pp_size": 2}, "FCCC .* candidate layers .*--pp-size"),
    ({"prefill_graph": "breakable"}, "FCCC .* --disable-prefill-cuda-graph"),
    ({"speculative": True}, "FCCC .* speculative decoding"),
]


@pytest.mark.parametrize("change, words", CANDIDATE_CLASHES)
@pytest.mark.parametrize("build", ["pattern", "all"])
def test_a_clash_with_candidate_layers_is_refused(change, words, build):
    import re

    eager = PLAIN._replace(prefill_graph="disabled", decode_graph="disabled")
    resolved = {**CANDIDATE, "build": build}
    assert refusal(resolved, eager) is None
    assert refusal(resolved, eager._replace(device="cpu", prefill_graph="breakable")) is None
    reason = refusal(resolved, eager._replace(**change))
    assert re.search(words if build == "pattern" else "cannot", reason)


def test_a_plain_server_takes_a_pattern():
    assert refusal(SHARED, PLAIN) is None


@pytest.mark.parametrize("change, words", CLASHES)
def test_a_clash_with_sharing_is_refused(change, words):
    import re

    assert re.search(words, refusal(SHARED, PLAIN._replace(**change)))


@pytest.mark.parametrize("change, words", CLASHES)
def test_all_full_allows_what_upstream_allows(change, words):
    assert refusal(FULL, PLAIN._replace(**change)) is None


@pytest.mark.parametrize("change, words", BUILD_ALL_CLASHES)
def test_building_everything_refuses_what_bakes_or_ships_roles(change, words):
    eager = PLAIN._replace(decode_graph="disabled", prefill_graph="disabled")
    assert refusal(BUILD_ALL, eager) is None
    assert words in refusal(BUILD_ALL, eager._replace(**change))


def test_building_everything_on_cpu_has_no_graphs_to_refuse():
    assert refusal(BUILD_ALL, PLAIN._replace(device="cpu")) is None
