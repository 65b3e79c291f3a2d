"""The kernels compile for Hopper on a machine without a GPU, and spill nothing from registers."""

import pytest

triton = pytest.importorskip("triton")

from sglang_ic.hopper import kernels, pages, scoring, slots  # noqa: E402

SELECT = {"TOPK": 2048, "LANES": 256, "LEVELS": 32}
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
    "count": (
        pages.count_kernel,
        {"K": 2048, "BLOCK": 1024, "PAGE": 64, "HAS_TABLE": True},
        4,
    ),
    "look up": (pages.look_up_kernel, {"K": 2048, "BLOCK": 1024, "PAGE": 64}, 4),
    "slots": (slots._slots_kernel, {"K": 2048, "BLOCK": 1024}, 4),
    "score": (
        scoring.score_kernel,
        {"H": 32, "D": 128, "BLOCK_Q": 8, "BLOCK_K": 64, "STAGES": 3},
        4,
    ),
}
FLOATS = {"scores", "kept", "k_scale", "weights"}
NUMBERS = {"score_stride", "table_stride", "selected_stride", "position_stride", "num_rows"}
NUMBERS |= {"place_stride", "num_pages", "base"}
UNALIGNED = {"num_rows", "num_pages", "base"}


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
                if n not in constants and n not in UNALIGNED
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
