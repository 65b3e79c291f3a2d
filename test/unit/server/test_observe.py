"""What the scheduler process checks about candidate layers; needs SGLang's hook registry."""

import pytest

from sglang_ic.pattern import LayerPattern
from sglang_ic.server.observe import check_candidate_path

pytest.importorskip("sglang.srt.plugins.hook_registry", exc_type=ImportError)


def test_candidate_layers_on_a_gpu_need_the_plugins_hook(monkeypatch):
    from sglang_ic.hopper import candidates, plugin

    with pytest.raises(ValueError, match="FC has C .* put sglang_ic_hopper into SGLANG_PLUGINS"):
        check_candidate_path("cuda", LayerPattern("FC"))
    check_candidate_path("cuda", LayerPattern("FS"))
    check_candidate_path("cpu", LayerPattern("FC"))
    from sglang.srt.layers.attention.dsa.dsa_indexer import Indexer

    monkeypatch.setattr(Indexer, "_get_topk_ragged", candidates.topk_of_candidates)
    assert plugin.CANDIDATES.problem() is None
    check_candidate_path("cuda", LayerPattern("FC"))
