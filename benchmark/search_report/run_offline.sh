#!/usr/bin/env bash
# Fill a folder with the results that the report of the layer search reads, on a machine with one GPU
# and without a network: an unpatched SGLang lies unpacked in SITE, as for test/gpu/run_offline.sh.
#
# Usage, in the root of a checkout, in the environment that SITE needs:
#
#     bash benchmark/search_report/run_offline.sh SITE RESULTS STEP...
#
# One command after the other, with estimated seconds on one H200 (guesses, from the counted work:
# passes of the bundled model wait for launches, 16 layers x 1.3 ms and 9 ms around them, 30 ms in all;
# an engine starts in 40 s, the first one on a machine in up to 200; the 30B shape prefills 16K tokens
# in 1 s):
#
#     ... smoke      120   each tool in small: what cannot run on this machine fails here
#     ... searches   420   exhaustive to 2 Full on calibration-1: 120 candidates x 72 sequences = 8,640
#                          passes, 422M layer-token-forwards, 260 s; beside it the fast searches on the
#                          three sets, about 1/9 of that each
#     ... measure    360   34 patterns on 216 sequences = 7,344 passes, 220 s; beside it 22 patterns on
#                          24 held-out documents, whose answers (64 tokens a place) take 300 s to read
#     ... speed      280   30B shape, 32 x 16,384 random tokens: three whole candidates' worth of passes,
#                          100 s, states to the host, dummy weights and kernels that compile
#
# 20 minutes in all. Each ends within LIMIT seconds (default 560), keeps what it has, and goes on from
# there when it is run again; RESULTS.tgz holds everything so far after each. Then, anywhere:
#
#     PYTHONPATH=python:benchmark python3 -m search_report RESULTS
set -euo pipefail
site=$1 results=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
limit=${LIMIT:-560}
lengths=${LENGTHS:-2048,4096}   # calibration: 36 documents of each are 220,000 tokens
documents=${DOCUMENTS:-36}
held_out=${HELD_OUT:-8}         # test documents of each of 2,048, 4,096 and 8,192 tokens
shape=(--load-format dummy --random-seed 1 --chunked-prefill-size 8192)

work=$(mktemp -d)
mkdir -p "$results"
trap 'rm -rf "$work"; tar -C "$results" -czf "$results.tgz" .' EXIT
cp -r "$site/sglang" "$work/"
PYTHONPATH="$root/python" "$python" -m sglang_ic.fork apply --target "$work"
# SGLang finds plugins by their installed entry points.
mkdir "$work/sglang_ic-0.1.0.dist-info"
printf 'Metadata-Version: 2.1\nName: sglang_ic\nVersion: 0.1.0\n' > "$work/sglang_ic-0.1.0.dist-info/METADATA"
printf '[sglang.srt.plugins]\nsglang_ic = sglang_ic.plugin:register\nsglang_ic_cpu = sglang_ic.cpu.plugin:register\n' \
    > "$work/sglang_ic-0.1.0.dist-info/entry_points.txt"
export PYTHONPATH="$work:$root/python:$root/benchmark:$site" PYTHONUNBUFFERED=1

# Several engines share the GPU: each takes a small pool, from whatever memory is free when it starts.
pool=(--max-total-tokens 20480 --mem-fraction-static 0.7 --max-running-requests 4)

# The tool as Ctrl-C would end it after so many seconds; the shell hides that signal from its children.
tool() { env --default-signal=INT timeout -s INT -k 30 "$@"; }

search() {  # NAME ARGUMENTS...
    local folder=$results/$1
    shift
    grep -qs '"complete": true' "$folder/pattern.json" && return
    tool "$limit" "$python" -m sglang_ic.search "$@" --resume --output "$folder" -- "${pool[@]}"
}

smoke() {
    local small=(--context-lengths 1024 --documents 2) ok=0
    rm -rf "$results/smoke"
    mkdir -p "$results/smoke"
    tool 300 "$python" -m sglang_ic.search "${small[@]}" --full-layers 14 \
        --output "$results/smoke/search" -- "${pool[@]}" > "$results/smoke/search.txt" 2>&1 &
    local searching=$!
    tool 300 "$python" -m sglang_ic.evaluate "${small[@]}" --pattern freq:2 \
        --output "$results/smoke/test" -- "${pool[@]}" > "$results/smoke/test.txt" 2>&1 &
    local evaluating=$!
    tool 300 "$python" -m sglang_ic.search.losses "${small[@]}" --data calibration-1 --pattern freq:2 \
        --output "$results/smoke/losses" -- "${pool[@]}" > "$results/smoke/losses.txt" 2>&1 &
    wait $! || ok=1
    wait $searching || ok=1
    wait $evaluating || ok=1
    tail -n 12 "$results"/smoke/*.txt
    grep -h -A 3 '"noise"' "$results/smoke/search/pattern.json"
    return $ok
}

searches() {
    local common=(--context-lengths "$lengths" --documents "$documents" --full-layers "${GOAL:-2}")
    local name jobs=() ok=0
    for name in 1 2 3; do
        search "fast-$name" --data "calibration-$name" "${common[@]}" > "$results/fast-$name.txt" 2>&1 &
        jobs+=($!)
    done
    search exhaustive --method exhaustive --data calibration-1 "${common[@]}" \
        > "$results/exhaustive.txt" 2>&1 || ok=1
    for name in "${jobs[@]}"; do wait "$name" || ok=1; done
    tail -qn 2 "$results"/{exhaustive,fast-*}.txt
    return $ok
}

measure() {
    local name count evaluating='' patterns=() ok=0
    for name in exhaustive fast-1 fast-2 fast-3; do
        for count in ${COUNTS:-8 4 2}; do patterns+=(--pattern "$results/$name/pattern.json@$count"); done
    done
    if [ ! -e "$results/test/results.json" ]; then
        # A run that ends early has measured whole documents, of all lengths in turn.
        tool "$((limit - 120))" "$python" -m sglang_ic.evaluate --data test \
            --context-lengths "${TEST_LENGTHS:-2048,4096,8192}" --documents "$held_out" \
            --pattern "$results/fast-1/pattern.json@${QUARTER:-4}" --control uniform \
            --control "random:${RANDOM_PATTERNS:-20}" --output "$results/test" -- "${pool[@]}" \
            > "$results/test.txt" 2>&1 &
        evaluating=$!
    fi
    tool "$limit" "$python" -m sglang_ic.search.losses --data calibration-1 --data calibration-2 \
        --data calibration-3 --context-lengths "$lengths" --documents "$documents" "${patterns[@]}" \
        --control uniform --control random:6 --resume --output "$results/losses" -- "${pool[@]}" \
        > "$results/losses.txt" 2>&1 || ok=1
    if [ -n "$evaluating" ]; then wait "$evaluating" || ok=1; fi
    tail -n 30 "$results"/{losses,test}.txt
    return $ok
}

speed() {
    tool "$limit" "$python" -m search_report.speed --cache-gib 56 --output "$results/speed.json" \
        -- "${shape[@]}" --max-total-tokens 20480 --mem-fraction-static 0.85
}

for step in "$@"; do
    case $step in
        smoke | searches | measure | speed) "$step" ;;
        *) echo "error: $step is no step: use smoke, searches, measure, speed" >&2; exit 2 ;;
    esac
done
