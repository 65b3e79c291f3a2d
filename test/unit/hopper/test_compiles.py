"""The kernels compile for Hopper on a machine without a GPU, and spill nothing from registers."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

from sglang_ic.hopper import (  # noqa: E402
    attention,
    attention_kernel,
    choosing,
    decode_attention_kernel,
    fused_hooks,
    keeping,
    pages,
    rescuing,
    sampling,
    scoring,
    slots,
)
from sglang_ic.hopper.summing import UNFUSED  # noqa: E402

TILE = {"H": 32, "D": 128, "BLOCK_Q": 8, "BLOCK_K": 64, "STAGES": 3}
KEPT = {"TOPK": 2048, "TOPK_POWER": 2048, "LANES": 64, "LEVELS": 128}
ATTENTION = {
    **{"K": 2048, "LATENT": attention.LATENT, "ROPE": attention.ROPE},
    **{"UNIT": attention.UNIT, "BLOCK_K": attention.BLOCK_K},
}
CASES = {
    "count": (
        pages.count_kernel,
        {"K": 2048, "BLOCK": 1024, "PAGE": 64, "HAS_TABLE": True},
        4,
    ),
    "look up": (pages.look_up_kernel, {"K": 2048, "BLOCK": 1024, "PAGE": 64}, 4),
    **{
        f"attention of {num_heads} heads{', with lengths' * has_lengths}": (
            attention_kernel.sparse_attention_kernel,
            {**ATTENTION, "H": num_heads, "HAS_LENGTHS": has_lengths},
            4,
        )
        for num_heads in attention.HEADS
        for has_lengths in (False, True)
    },
    **{
        f"split of {keys} keys, {num_heads} heads": (
            decode_attention_kernel.attend_to_split_kernel,
            {**ATTENTION, "H": num_heads, "SPLIT": keys, "NUM_SPLITS": 2048 // keys},
            4,
        )
        for num_heads in attention.HEADS
        for keys in (64, 128)
    },
    "combine": (
        decode_attention_kernel.combine_splits_kernel,
        {"H": 32, "LATENT": attention.LATENT, "BLOCK": 128, "NUM_SPLITS": 32, "SPLITS": 32},
        4,
    ),
    "slots": (slots._slots_kernel, {"K": 2048, "BLOCK": 1024}, 4),
    "score": (scoring.score_kernel, TILE, 4),
    "gather": (sampling.gather_kernel, {"D": 128, "STEP": 32, "BLOCK": 64}, 4),
    "bound": (
        sampling.bound_kernel,
        {"AIM": 3584, "CAPACITY": 8192, "STEP": 32, "SAMPLES": 8192},
        4,
    ),
    "bound, as many keys as may be": (
        sampling.bound_kernel,
        {"AIM": 3584, "CAPACITY": 8192, "STEP": 32, "SAMPLES": fused_hooks.MOST_KEYS // 32},
        sampling._bound_warps(fused_hooks.MOST_KEYS // 32),
    ),
    "bound, short": (
        sampling.bound_kernel,
        {"AIM": 3584, "CAPACITY": 8192, "STEP": 32, "SAMPLES": 4096},
        1,
    ),
    "keep": (keeping.keep_kernel, {**TILE, "STAGES": 4, "LEVELS": 128}, 4),
    "keep, 64 heads": (
        keeping.keep_kernel,
        {**TILE, "H": 64, "BLOCK_Q": 4, "STAGES": 4, "LEVELS": 128},
        4,
    ),
    "choose": (choosing.choose_kept_kernel, {**KEPT, "BLOCK": 1024, "HAS_TABLE": True}, 8),
    "rescue": (
        rescuing.rescue_kernel,
        {**TILE, "TOPK": 2048, "BLOCK": 512, "HAS_TABLE": True},
        4,
    ),
}
GLUON = {"keep", "keep, 64 heads"}
SCORING = {"score", "rescue"} | GLUON
REGISTERS = {"choose": {"maxnreg": 64}}
POINTERS = {
    "*fp32": {
        *("scores", "samples", "bounds", "k_scale", "sampled_scale", "weights"),
        *("mixed", "mixed_out", "stats", "stats_out"),
    },
    "*fp8e4nv": {"q", "k"},
    "*u8": {"sampled_k"},
    "*bf16": {"q_nope", "q_rope", "kv", "out"},
    "fp32": {"scale"},
}
OTHER_POINTERS = {"gather": {"k": "*u8"}}  # names that are something else in one kernel
OTHER_NUMBERS = {"base", "rope_stride_h"}


def argument_type(kernel, name):
    if "_stride" in name or name.startswith("num_") or name in OTHER_NUMBERS:
        return "i32"
    if name in OTHER_POINTERS.get(kernel, {}):
        return OTHER_POINTERS[kernel][name]
    return next((kind for kind, names in POINTERS.items() if name in names), "*i32")


@pytest.fixture(scope="module")
def compiled():
    """`compiled(name)`: a kernel of CASES, compiled once."""
    return cache(compile_for_hopper)


def compile_for_hopper(name):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource

    kernel, constants, num_warps = CASES[name]
    position = {argument: (index,) for index, argument in enumerate(kernel.arg_names)}
    types = {n: argument_type(name, n) for n in position}
    source = GluonASTSource if kernel.is_gluon() else ASTSource
    return triton.compile(
        source(
            fn=kernel,
            signature={n: "constexpr" if n in constants else types[n] for n in position},
            constexprs={position[n]: value for n, value in constants.items()},
            attrs={
                position[n]: [["tt.divisibility", 16]]
                for n in position
                if n not in constants
                and not n.startswith("num_")
                and n not in OTHER_NUMBERS
                and types[n] != "fp32"
            },
        ),
        target=GPUTarget("cuda", 90, 32),
        options={
            "num_warps": num_warps,
            **(UNFUSED if name in SCORING else {}),
            **REGISTERS.get(name, {}),
        },
    )


def constants(name):
    return CASES[name][1]


@pytest.mark.parametrize("name", CASES)
def test_kernel_compiles_for_hopper(compiled, name, tmp_path):
    kernel = compiled(name)
    ptx = kernel.asm["ptx"]
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.backends.nvidia.__file__).with_name("bin") / "cuobjdump"
    usage = subprocess.check_output([tool, "--dump-resource-usage", cubin], text=True)
    assert " STACK:0 " in usage and " LOCAL:0 " in usage
    # 228 KB a multiprocessor, of which two programs should fit, each with 1 KB of the system's;
    # one of a split, which has its next keys under way.
    most = {"attention": 115_713, "split": 232_449}.get(name.partition(" ")[0], 100_000)
    assert kernel.metadata.shared < most
    if name.startswith("split"):
        assert ("wgmma.mma_async" in ptx) == (constants(name)["H"] > 8) and "cp.async" in ptx
    if name.startswith("attention"):
        assert f"wgmma.mma_async.sync.aligned.m64n{constants(name)['H']}k16.f32.bf16.bf16" in ptx
        assert set(re.findall(r"cp\.async\.c[ag]\S* [^;]*?, (0x\w+)", ptx)) == {"0x10"}
    # The compiler puts the barrier after a wait for copies, and what other threads copied is read.
    waits = re.findall(r"cp\.async\.wait_group\s+\d;\s*(\S+)", ptx)
    assert waits or name not in GLUON
    assert name not in GLUON and not name.startswith("attention") or set(waits) == {"bar.sync"}
    if name in SCORING:
        assert "wgmma.mma_async" in ptx and "e4m3.e4m3" in ptx
    if name in GLUON:
        # Products of both halves are under way at once; one waits for each.
        assert ptx.count("wgmma.wait_group.sync.aligned 1") == 1


def arithmetic(ptx):
    """What happens to the products of a tile up to its scores: instructions, in order."""
    after = ptx.partition("wgmma.wait_group")[2]
    before = re.split("st.global|st.shared|bar.sync", after)[0]
    return re.findall(r"\b(?:max|fma|mul|add)\S*f32|shfl\S*", before)


@pytest.mark.parametrize("name", sorted(SCORING - GLUON - {"score"}))
def test_every_kernel_computes_a_score_in_the_same_order(compiled, name):
    """So that the sets are the same, bit for bit, whichever kernel scored."""
    expected = arithmetic(compiled("score").asm["ptx"])
    assert len(expected) > 256
    assert arithmetic(compiled(name).asm["ptx"]) == expected


def computed(ptx) -> set[str]:
    """What registers hold, as text: sums of `[wgmma's result] * weight`, in their order.

    A doubled maximum, p + |p|, is written [i] for wgmma's i-th result, its factor is left a
    register, and what scales a sum is s.
    """
    results = re.findall(r"wgmma\.mma_async\S+ *\{([^}]*)\}", ptx)
    found = {}
    for names in results:
        for index, name in enumerate(names.split(",")):
            found.setdefault(name.strip(), f"{index}")
    pattern = r"(mul|add|abs|fma)(?:\.rn)?\.f32\s+(%r\d+), ([^;]+);"
    for operation, target, operands in re.findall(pattern, ptx):
        words = [found.get(word.strip(), word.strip()) for word in operands.split(",")]
        if operation == "abs":
            found[target] = f"|{words[0]}|"
        elif operation == "add" and words[1] == f"|{words[0]}|":
            found[target] = f"[{words[0]}]"
        elif operation == "mul":
            left, right = sorted(words, key=lambda word: "[" not in word)
            is_product = re.fullmatch(r"\[\d+\]", left)
            if "[" in left:
                found[target] = f"{left}*{right if is_product else 's'}"
        elif operation == "fma":
            left, right = sorted(words[:2], key=lambda word: "[" not in word)
            found[target] = f"fma({left},{right},{words[2]})"
        else:
            found[target] = f"({words[0]}+{words[1]})"
    return set(found.values())


def in_deep_gemms_order(first: int, step: int, groups: int) -> str:
    """A score as DeepGEMM's thread and its three neighbours compute it, as a pattern: ``summing``.

    Args:
        first: the result of head 0; step: from a pair of heads to the next; groups: of eight heads.
    """

    def of_one_head(pair, odd):
        at = [first + (4 * group + pair) * step + odd for group in range(groups)]
        terms = [rf"\[{one}\](?:,|\*)(%r\d+)" for one in at]
        total = rf"fma\({terms[0]},{terms[1]}\)"
        for term in terms[2:]:
            total = rf"fma\({term},{total}\)"
        return total

    pairs = [rf"\({of_one_head(pair, 0)}\+{of_one_head(pair, 1)}\)\*s" for pair in range(4)]
    return rf"\(\({pairs[0]}\+{pairs[1]}\)\+\({pairs[2]}\+{pairs[3]}\)\)"


@pytest.mark.parametrize("name", ["keep", "score"])
def test_a_score_is_summed_as_deep_gemm_sums_it(compiled, name):
    """32 heads: four queries of a half, so a thread has a query, its pairs of heads in order."""
    found = computed(compiled(name).asm["ptx"])
    weights = []
    for first in (0, 2):  # two rows of keys
        pattern = in_deep_gemms_order(first, 4, 4)
        weights.append({one.groups() for text in found if (one := re.fullmatch(pattern, text))})
        assert weights[-1]
        for of_heads in weights[-1]:
            assert len(set(of_heads)) == 32  # one each
    assert weights[0] == weights[1]


@pytest.mark.parametrize("name", sorted(SCORING))
def test_products_below_zero_are_left_out_at_full_rate(compiled, name):
    """By an addition a product: see score_keys."""
    operations = arithmetic(compiled(name).asm["ptx"])
    assert not any(operation.startswith("max") for operation in operations)
    expected = 64 if name in GLUON else 128  # what is under way when one half is waited for
    assert sum(operation.startswith("add") for operation in operations) >= expected


@pytest.mark.parametrize("name", ["score", "keep", "rescue"])
def test_a_thread_sums_over_heads_by_itself(compiled, name):
    """See load_block."""
    after = compiled(name).asm["ptx"].partition("wgmma.wait_group")[2]
    assert "shfl" not in after.partition("bar.sync")[0]
