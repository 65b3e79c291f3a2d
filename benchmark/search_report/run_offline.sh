#!/usr/bin/env bash
# Fill a folder with the results that the report of the layer search reads, on a machine with one GPU
# and without a network: an unpatched SGLang lies unpacked in SITE, as for test/gpu/run_offline.sh.
#
# Usage, in the root of a checkout, in the environment that SITE needs:
#
#     bash benchmark/search_report/run_offline.sh SITE RESULTS STEP...
#
# One command after the other; seconds as one H200 with 16 cores took them:
#
#     ... smoke      210   each tool in small: what cannot run on this machine fails here. The first
#                          engine on a machine compiles kernels for two minutes of it
#     ... searches  1000   exhaustive to 2 Full on calibration-1: 120 candidates x 108 sequences = 12,960
#                          passes of 2,048 tokens, 418M layer-token-forwards at 400,000 to 700,000 a
#                          second (a pass waits for launches); beside it the fast searches on the three
#                          sets, 100 s each
#     ... measure    550   23 patterns on the three sets, a process each, 230 s; beside them 22 patterns
#                          on 24 held-out documents, of which most reads answers, 490 s
#     ... speed      206   30B shape, 32 x 16,384 random tokens
#
# Each ends within LIMIT seconds (default 560), keeps what it has, and goes on from there when it is
# run again; RESULTS.tgz holds everything so far after each. Then, anywhere:
#
#     PYTHONPATH=python:benchmark python3 -m search_report RESULTS
set -euo pipefail
site=$1 results=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
limit=${LIMIT:-560}
lengths=${LENGTHS:-2048}        # calibration: 108 documents are 217,000 tokens
documents=${DOCUMENTS:-108}
held_out=${HELD_OUT:-8}         # test documents of each of 2,048, 4,096 and 8,192 tokens
shape=(--load-format dummy --random-seed 1 --chunked-prefill-size 8192)

work=$(mktemp -d)
mkdir -p "$results"
site=$(cd "$site" && pwd) results=$(cd "$results" && pwd)
trap 'rm -rf "$work"; tar -C "$results" -czf "$results.tgz" .' EXIT
. "$root/benchmark/patched_copy.sh"
patched_copy "$site" "$work" "$python"
export PYTHONPATH="$work:$root/python:$root/benchmark:$site" PYTHONUNBUFFERED=1
cd "$results"   # so that the commands in the results name files within them

# Several engines share the GPU: each takes a small pool, from whatever memory is free when it starts.
pool=(--max-total-tokens 20480 --mem-fraction-static 0.7 --max-running-requests 4)

# The tool as Ctrl-C would end it after so many seconds; the shell hides that signal from its children.
tool() { env --default-signal=INT timeout -s INT -k 30 "$@"; }

search() {  # NAME ARGUMENTS...
    local folder=$1
    shift
    grep -qs '"complete": true' "$folder/pattern.json" && return
    tool "$limit" "$python" -m sglang_ic.search "$@" --resume --output "$folder" -- "${pool[@]}"
}

smoke() {
    local small=(--context-lengths 1024 --documents 2) ok=0
    rm -rf smoke
    mkdir -p smoke
    tool 300 "$python" -m sglang_ic.search "${small[@]}" --full-layers 14 \
        --output smoke/search -- "${pool[@]}" > smoke/search.txt 2>&1 &
    local searching=$!
    tool 300 "$python" -m sglang_ic.evaluate "${small[@]}" --pattern freq:2 \
        --output smoke/test -- "${pool[@]}" > smoke/test.txt 2>&1 &
    local evaluating=$!
    tool 300 "$python" -m sglang_ic.search.losses "${small[@]}" --data calibration-1 --pattern freq:2 \
        --output smoke/losses -- "${pool[@]}" > smoke/losses.txt 2>&1 &
    wait $! || ok=1
    wait $searching || ok=1
    wait $evaluating || ok=1
    tail -n 12 smoke/*.txt
    grep -h -A 3 '"noise"' "smoke/search/pattern.json"
    return $ok
}

searches() {
    local common=(--context-lengths "$lengths" --documents "$documents" --full-layers "${GOAL:-2}")
    local name jobs=() ok=0
    for name in 1 2 3; do
        search "fast-$name" --data "calibration-$name" "${common[@]}" > "fast-$name.txt" 2>&1 &
        jobs+=($!)
    done
    search exhaustive --method exhaustive --data calibration-1 "${common[@]}" \
        > exhaustive.txt 2>&1 || ok=1
    for name in "${jobs[@]}"; do wait "$name" || ok=1; done
    tail -qn 2 {exhaustive,fast-*}.txt
    return $ok
}

measure() {
    local name count patterns=() jobs=() ok=0
    for name in exhaustive fast-1 fast-2 fast-3; do
        for count in ${COUNTS:-8 4 2}; do patterns+=(--pattern "$name/pattern.json@$count"); done
    done
    if [ ! -e test/results.json ]; then
        # A run that ends early has measured whole documents, of all lengths in turn.
        tool "$limit" "$python" -m sglang_ic.evaluate --data test \
            --context-lengths "${TEST_LENGTHS:-2048,4096,8192}" --documents "$held_out" \
            --pattern "fast-1/pattern.json@${QUARTER:-4}" --control uniform \
            --control "random:${RANDOM_PATTERNS:-20}" --output test -- "${pool[@]}" \
            > test.txt 2>&1 &
        jobs+=($!)
    fi
    for name in 1 2 3; do
        tool "$limit" "$python" -m sglang_ic.search.losses --data "calibration-$name" \
            --context-lengths "$lengths" --documents "$documents" "${patterns[@]}" --control uniform \
            --control random:6 --resume --output "losses-$name" -- "${pool[@]}" \
            > "losses-$name.txt" 2>&1 &
        jobs+=($!)
    done
    for name in "${jobs[@]}"; do wait "$name" || ok=1; done
    tail -n 30 losses-?.txt test.txt
    return $ok
}

speed() {
    tool "$limit" "$python" -m search_report.speed --cache-gib 56 --output speed.json \
        -- "${shape[@]}" --max-total-tokens 20480 --mem-fraction-static 0.85
}

for step in "$@"; do
    case $step in
        smoke | searches | measure | speed) "$step" ;;
        *) echo "error: $step is no step: use smoke, searches, measure, speed" >&2; exit 2 ;;
    esac
done
