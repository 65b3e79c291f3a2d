"""Demo tests need torch, transformers and tokenizers, and no SGLang."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from sglang_ic.demo import bundled_model


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """These matrices are too small to share: on a busy machine two threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def load():
    """Load a checkpoint with transformers in fp32: `model, report = load(directory, **config)`."""

    def load_in_fp32(directory, **config):
        return AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            **config,
        )

    return load_in_fp32


@pytest.fixture(scope="session")
def bundled(load):
    """The bundled model as transformers loads it."""
    model, report = load(bundled_model())
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()
