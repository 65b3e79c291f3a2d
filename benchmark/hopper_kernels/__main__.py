"""Times of the indexer's steps on one Hopper GPU, upstream's and ours, without a server."""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import torch

from hopper_kernels.attention import attention
from hopper_kernels.chunk import Chunk
from hopper_kernels.decode import decode, decode_attention
from hopper_kernels.scores import score_steps
from hopper_kernels.selection import topk_steps
from hopper_kernels.shapes import HEADS
from hopper_kernels.timing import Bench, copy_bandwidth

SCHEMA_VERSION = 1
ATTENTION_KEYS = 139_264


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hopper_kernels", description=__doc__)
    parser.add_argument("--rows", type=int, default=8192, help="queries of a chunk (%(default)s)")
    parser.add_argument("--keys", default="139264,200000,65536", help="contexts (%(default)s)")
    parser.add_argument("--heads", type=int, default=32, help="index heads (%(default)s)")
    parser.add_argument("--batches", default="1,16", help="decode batches (%(default)s)")
    parser.add_argument("--decode-keys", type=int, default=200_000)
    parser.add_argument("--bandwidth", type=float, help="TB/s for the floors; measured if left out")
    parser.add_argument("--deadline", type=float, default=170, help="seconds (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this benchmark needs an NVIDIA GPU")
    began = time.monotonic()
    device = torch.device("cuda")
    torch.manual_seed(0)
    bandwidth = args.bandwidth or copy_bandwidth(device)
    torch.cuda.empty_cache()
    bench = Bench(began + args.deadline, bandwidth)
    for batch in map(int, args.batches.split(",")):
        decode(bench, batch, args.decode_keys, args.heads, device)
    for num_heads in HEADS:
        for num_tokens in (1, 2, 5, 8, 16):
            decode_attention(bench, num_tokens, num_heads, device)
        attention(bench, args.rows, ATTENTION_KEYS, num_heads, device)
    torch.cuda.empty_cache()
    for num_keys in map(int, args.keys.split(",")):
        chunk = Chunk.make(args.rows, num_keys, args.heads, device)
        topk_steps(bench, chunk, *score_steps(bench, chunk))
        torch.cuda.empty_cache()
    for row in bench.rows:
        print(bench.line(row) if "median_ms" in row else row)
    versions = {"torch": torch.__version__, "triton": __import__("triton").__version__}
    document = {
        "schema_version": SCHEMA_VERSION,
        "command": "python -m hopper_kernels " + shlex.join(sys.argv[1:]),
        "hardware": torch.cuda.get_device_name(device),
        "software": versions,
        "copy_tb_per_sec": bandwidth,
        "seconds": time.monotonic() - began,
        "rows": bench.rows,
    }
    if args.output:
        args.output.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
