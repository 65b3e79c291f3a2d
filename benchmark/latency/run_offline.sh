#!/usr/bin/env bash
# Measure one part of a plan on a GPU machine without a network, where an unpatched SGLang lies
# unpacked in SITE. Stock runs from there, the fork from a patched copy beside it, in one command.
#
# Usage, in the root of a checkout:
#   bash benchmark/latency/run_offline.sh SITE OUTPUT PLAN PART [TIME_LIMIT_SEC]
# OUTPUT.jsonl has every number (OUTPUT.json, .md and .png as well); a part that was stopped at the
# time limit (default 590, exit code 3) goes on when the same command is given again.
#
# The parts of hopper.toml, in the order for a machine that is held for half an hour and ends a
# command after ten minutes. Estimates for one H200, not yet run: a server of this model starts in
# about 60 s, and what is compiled on the machine's first decode graphs adds about 140 s once.
#
#   prefill        470 s   3 starts; 200K: 2 x (23 + 13.4), 2 x (23 + 13.4 + 10), 2 x 12 s;
#                          64K: 3 x 8, 3 x 11, 3 x 3.4 s; one warm-up of each length on each server
#   profile        470 s   3 starts, 3 x 10 s of cached prompt, 5 arms of 30 s, 140 s compiling
#   decode-bf16    480 s   2 starts, 2 x 5 prompts of 23 s, 2 rounds of 6 arms at 10 s
#                 1420 s   in all
#
# on another machine (or later on this one):
#
#   prefill-attention   350 s   4 starts, 8 prompts of 12 to 23 s
#   decode-fp8          430 s   1 start, 8 prompts of 23 s, 3 rounds of 4 arms at 10 s, compiling
#   decode-fp8-control  300 s   2 starts, 2 prompts, 3 rounds of 4 arms at 8 s
#   servers             400 s   5 starts with graphs of their own, 5 prompts of 64K
set -euo pipefail
site=$(cd "$1" && pwd)
output=$2
plan=$3
part=$4
limit=${5:-590}
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$site-fork
if [ ! -f "$work/.done" ]; then
    rm -rf "$work"
    mkdir "$work"
    cp -r "$site/sglang" "$work/"
    PYTHONPATH="$root/python" python3 -m sglang_ic.fork apply --target "$work"
    # SGLang finds plugins by their installed entry points.
    mkdir "$work/sglang_ic-0.1.0.dist-info"
    printf 'Metadata-Version: 2.1\nName: sglang_ic\nVersion: 0.1.0\n' \
        > "$work/sglang_ic-0.1.0.dist-info/METADATA"
    printf '[sglang.srt.plugins]\nsglang_ic = sglang_ic.plugin:register\nsglang_ic_cpu = sglang_ic.cpu.plugin:register\nsglang_ic_hopper = sglang_ic.hopper.plugin:register\n' \
        > "$work/sglang_ic-0.1.0.dist-info/entry_points.txt"
    touch "$work/.done"
fi
# A command that is killed copies nothing, so the journal lies beside the site and goes on from there.
kept=$work/journals/$(basename "$output")
mkdir -p "$(dirname "$kept")" "$(dirname "$output")"
copy() {
    for suffix in jsonl json md png; do
        if [ -f "$kept.$suffix" ]; then cp "$kept.$suffix" "$output.$suffix"; fi
    done
    if [ -d "$kept" ]; then tail -n 60 "$kept"/*.log | cut -c1-400 > "$output.log"; fi
}
trap copy EXIT
PYTHONPATH="$work:$root/python:$site" python3 -m sglang_ic.latency "$plan" --part "$part" \
    --output "$kept" --stock-site "$site" --time-limit "$((limit - SECONDS))"
