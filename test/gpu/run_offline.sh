#!/usr/bin/env bash
# Run test/gpu on a GPU machine without a network: an unpatched SGLang lies unpacked in $1.
# Usage, in the root of a checkout: bash test/gpu/run_offline.sh /path/to/site [pytest arguments]
set -euo pipefail
site=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$root/benchmark/patched_copy.sh"
patched_copy "$site" "$work"
export SGLANG_IC_STOCK_SITE=$site
PYTHONPATH="$work:$root/python:$site" python3 -m pytest "$root/test/gpu" -p no:cacheprovider "$@"
