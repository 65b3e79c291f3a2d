"""The kernels compile for Hopper on a machine without a GPU, and spill nothing from registers."""

import pytest

triton = pytest.importorskip("triton")

from sglang_ic.hopper import fused_kernels, kernels, sampling, scoring, slots  # noqa: E402

SELECT = {"TOPK": 2048, "LANES": 256, "LEVELS": 32}
TILE = {"H": 32, "D": 128, "BLOCK_Q": 8, "BLOCK_K": 64, "STAGES": 3}
CASES = {
    "collect": (
        kernels.collect_kernel,
        {**SELECT, "SAMPLES": 4096, "SEGMENT": 8, "TRIES": 4},
        8,
    ),
    "choose": (
        kernels.choose_kernel,
        {**SELECT, "TOPK_POWER": 2048, "BLOCK": 512, "HAS_TABLE": True},
        16,
    ),
    "slots": (slots._slots_kernel, {"K": 2048, "BLOCK": 1024}, 4),
    "score": (scoring.score_kernel, TILE, 4),
    "gather": (sampling.gather_kernel, {"D": 128, "STEP": 32, "BLOCK": 64}, 4),
    "bound": (
        sampling.bound_kernel,
        {"AIM": 4096, "CAPACITY": 8192, "STEP": 32, "SAMPLES": 8192},
        8,
    ),
    "keep": (fused_kernels.keep_kernel, {**TILE, "LEVELS": 128}, 4),
    "choose_kept": (
        fused_kernels.choose_kept_kernel,
        {"TOPK": 2048, "TOPK_POWER": 2048, "LANES": 64, "LEVELS": 128, "HAS_TABLE": True},
        16,
    ),
    "rescue": (
        fused_kernels.rescue_kernel,
        {**TILE, "TOPK": 2048, "BLOCK": 512, "HAS_TABLE": True},
        4,
    ),
}
FLOATS = {"scores", "kept", "k_scale", "weights"}
NUMBERS = {"score_stride", "table_stride", "selected_stride", "position_stride", "num_rows"}


def pointer(name):
    if name in NUMBERS:
        return "i32"
    return "*fp32" if name in FLOATS else "*fp8e4nv" if name in {"q", "k"} else "*i32"


@pytest.mark.parametrize("name", CASES)
def test_kernel_compiles_for_hopper(name):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, constants, num_warps = CASES[name]
    position = {argument: (index,) for index, argument in enumerate(kernel.arg_names)}
    compiled = triton.compile(
        ASTSource(
            fn=kernel,
            signature={n: "constexpr" if n in constants else pointer(n) for n in position},
            constexprs={position[n]: value for n, value in constants.items()},
            attrs={
                position[n]: [["tt.divisibility", 16]]
                for n in position
                if n not in constants and n != "num_rows"
            },
        ),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": num_warps},
    )
    ptx = compiled.asm["ptx"]
    assert ".local" not in ptx
    # 228 KB a multiprocessor, of which two programs should fit.
    assert compiled.metadata.shared < 100_000
    if name == "score":
        assert "wgmma.mma_async" in ptx and "e4m3.e4m3" in ptx
    if name == "collect":
        # Lanes wait for one another only around the loops: twice for the sample, thrice for counts.
        assert ptx.count("bar.sync") <= 12
