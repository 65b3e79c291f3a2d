"""Jobs of `_driver.py` for the measuring tool: the probe on a real model, and a real engine."""

import torch
from _engine_jobs import ask, engine
from _parity_jobs import build, prompt


def probe_passes(
    model: str, override: dict, length: int, positions: list[int], chunk_size: int
) -> dict:
    """One prefill without, with and in chunks with the probe, and the engine's own records.

    Returns:
        `logits`: [length, vocab] by way; `arrays`: what the probe wrote, by way; `recorded`: the
        selections that SGLang's capturer saw, [layers, length, k]; `attended`: per layer the mean
        over heads of the attention's output, and the same from the probe's shares, for rows that
        select every token.
    """
    from sglang_ic.server import probe

    runner = build(model, override)
    model_runner = runner.model_runner
    ids = prompt(length, seed=1)
    num_layers = model_runner.model_config.num_hidden_layers
    index_topk = model_runner.model_config.hf_config.index_topk
    logits, arrays = {}, {}

    def probed(name: str, at: list[int], **kwargs) -> None:
        watching = probe.Probe(model_runner, at)
        logits[name] = runner.prefill(ids, **kwargs)
        watching.stop()
        arrays[name] = watching.arrays()

    logits["without"] = runner.prefill(ids)
    probed("with", positions)
    logits["after"] = runner.prefill(ids)
    probed("in chunks", positions, chunk_size=chunk_size)
    with runner.record_topk() as records:
        runner.prefill(ids)

    outputs, expected = [], []
    real = probe.mean_attention

    def watched(query, latent, seen, scaling):
        shares = real(query, latent, seen, scaling)
        expected.append(shares @ latent[:, : model_runner.model.config.kv_lora_rank].float())
        return shares

    short = list(range(index_topk))
    handles = [
        layer.self_attn.attn_mqa.register_forward_hook(
            lambda module, args, output: outputs.append(
                output.view(length, module.tp_q_head_num, -1).mean(1)[short]
            )
        )
        for layer in model_runner.model.model.layers
    ]
    probe.mean_attention = watched
    probed("short rows", short)
    probe.mean_attention = real
    for handle in handles:
        handle.remove()
    return {
        "logits": logits,
        "arrays": arrays,
        "recorded": torch.stack([records.layer(layer) for layer in range(num_layers)]),
        "attended": list(zip(outputs, expected, strict=True)),
        "hooks_left": sum(
            len(layer.self_attn.attn_mqa._forward_hooks)
            for layer in model_runner.model.model.layers
        ),
    }


def generated_and_scored(model: str, override: str, length: int) -> dict:
    """A greedy answer, and scores of the prompt with it and with another one in its place.

    Returns:
        `tokens`: the answer; `right`: for the true answer, and for it with its last token changed,
        what `answers_right` says; `logprobs`: what generation and scoring say about its tokens;
        `refusals`: what the probe's methods say when they are misused.
    """
    from sglang_ic.evaluate.samples import Sample, Span
    from sglang_ic.evaluate.scores import answers_right
    from sglang_ic.evaluate.wire import request, token_scores

    with engine(model, override) as started:
        (answer,) = ask(started, [prompt(length, seed=1)])
        span = (Span("greedy", length, len(answer["ids"])),)
        changed = [*answer["ids"][:-1], (answer["ids"][-1] + 1) % 250]
        right, scored = [], []
        for ids in (answer["ids"], changed):
            scores = token_scores(started.generate(**request(ids)), ids)
            right += answers_right(Sample("s", "s", length, tuple(ids), span), scores).tolist()
            scored.append(scores.logprobs[length - 1 :].tolist())
        refusals = [
            _error(started, "stop_index_cache_probe", folder="."),
            _error(started, "start_index_cache_probe", positions="[400]"),
            _error(started, "start_index_cache_probe", positions="[400]"),
            _error(started, "stop_index_cache_probe", folder="."),
            _error(started, "start_index_cache_probe", positions="[400]"),
        ]
    return {
        "tokens": answer["tokens"],
        "right": right,
        "generated": [answer["logprobs"][length + i] for i in range(len(answer["tokens"]))],
        "scored": scored[0],
        "refusals": refusals,
    }


def _error(engine, method: str, **kwargs) -> str | None:
    try:
        engine.collective_rpc(method, **kwargs)
    except AssertionError as error:  # what collective_rpc raises for every failure
        return str(error)
    return None
