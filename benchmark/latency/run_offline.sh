#!/usr/bin/env bash
# Measure one part of a plan on a GPU machine without a network, where an unpatched SGLang lies
# unpacked in SITE. Stock runs from there, the fork from a patched copy beside it, in one command.
#
# Usage, in the root of a checkout:
#   bash benchmark/latency/run_offline.sh SITE OUTPUT PLAN PART [TIME_LIMIT_SEC]
# OUTPUT.jsonl has every number (OUTPUT.json, .md and .png as well); a part that was stopped at the
# time limit (default 590, exit code 3) goes on when the same command is given again.
#
# The parts of hopper.toml. Seconds on one H200, measured where it says so, else sums of what was
# measured there: a server starts in 60 s, the first one on a machine in 140 s more (it compiles);
# a prompt of 200K takes 23 s with 47 Full layers, 13.4 with 12, 9.8 with 1; one of 64K 4.5, 3.5, 3.1.
# With replaced kernels it is 10.9 and 3.0.
#
#   profile             320 s   measured, the first start with it; 3 servers, 5 arms
#   prefill             515 s   measured; 3 servers, 7 arms, 2 rounds of both lengths
#   prefill-fused       420 s   measured; 3 servers, 4 arms, 2 rounds of both lengths
#   decode-bf16         255 s   measured; 3 servers, 6 arms
#   decode-bf16-batch   365 s   measured; 2 servers, 2 x 5 prompts, 5 arms
#   decode-fp8          295 s   measured; 1 server, 8 prompts, 3 arms
#   decode-split        480 s   measured, the first start with it; 4 servers, 6 arms
#   decode-fp8-control  285 s   2 servers, 4 arms, 3 rounds; ended within 330 s
#   decode-streams      240 s   3 starts, 3 prompts of 64K, 9 visits
#   servers             220 s   3 starts, without what their graphs add; 3 prompts of 64K, 3 visits
#   prefill-tp2         430 s   on two GPUs; 3 servers, 4 arms; ended within two commands of 220 and 320 s
#
# A machine of two GPUs can measure a part on each (CUDA_VISIBLE_DEVICES).
set -euo pipefail
site=$(cd "$1" && pwd)
output=$(realpath -m "$2")
plan=$(realpath "$3")
part=$4
limit=${5:-590}
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$site-fork
. "$root/benchmark/patched_copy.sh"
stamp=$(cat "$root"/patches/* "$root/pyproject.toml" | sha256sum)
if [ "$(cat "$work/.done" 2> /dev/null)" != "$stamp" ]; then
    rm -rf "$work"
    mkdir "$work"
    patched_copy "$site" "$work"
    echo "$stamp" > "$work/.done"
fi
# A command that is killed copies nothing, so the journal lies beside the site and goes on from there.
kept=$(basename "$output")
mkdir -p "$work/journals" "$(dirname "$output")"
# So that the commands in the results name files within it; not beside sglang, which stock would find.
cd "$work/journals"
copy() {
    for suffix in jsonl json md png; do
        if [ -f "$kept.$suffix" ]; then cp "$kept.$suffix" "$output.$suffix"; fi
    done
    if [ -d "$kept" ]; then (tail -n 60 "$kept"/*.log | cut -c1-400) > "$output.log" || true; fi
}
trap copy EXIT
PYTHONPATH="$work:$root/python:$site" python3 -m sglang_ic.latency "$plan" --part "$part" \
    --output "$kept" --stock-site "$(realpath --relative-to . "$site")" --time-limit "$((limit - SECONDS))"
