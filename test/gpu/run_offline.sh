#!/usr/bin/env bash
# Run test/gpu on a GPU machine without a network: an unpatched SGLang lies unpacked in $1.
# Usage, in the root of a checkout: bash test/gpu/run_offline.sh /path/to/site [pytest arguments]
set -euo pipefail
site=$1
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
cp -r "$site/sglang" "$work/"
PYTHONPATH="$root/python" python3 -m sglang_ic.fork apply --target "$work"
# SGLang finds plugins by their installed entry points.
mkdir "$work/sglang_ic-0.1.0.dist-info"
printf 'Metadata-Version: 2.1\nName: sglang_ic\nVersion: 0.1.0\n' > "$work/sglang_ic-0.1.0.dist-info/METADATA"
printf '[sglang.srt.plugins]\nsglang_ic = sglang_ic.plugin:register\nsglang_ic_cpu = sglang_ic.cpu.plugin:register\nsglang_ic_hopper = sglang_ic.hopper.plugin:register\n' \
    > "$work/sglang_ic-0.1.0.dist-info/entry_points.txt"
export SGLANG_IC_STOCK_SITE=$site
PYTHONPATH="$work:$root/python:$site" python3 -m pytest "$root/test/gpu" -p no:cacheprovider "$@"
