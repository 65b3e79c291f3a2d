#!/usr/bin/env bash
# Makes cpu.txt and cuda.txt from the .in files: `make lock`. Takes a few minutes and about 2 GB of disk.
set -euo pipefail
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3.11}" -m venv "$scratch/venv"
python=$scratch/venv/bin/python

header() {
  echo "# Made by \`make lock\` from requirements/$1.in with Python $("$python" -c 'import platform; print(platform.python_version())')"
  echo "# on $(uname -m) Linux: $2"
}

# pip, not a resolver alone: the CPU build of PyTorch has other requirements than the CUDA build.
# shellcheck disable=SC2086  # PIP_ARGS is a list of words
"$python" -m pip install --quiet ${PIP_ARGS:-} -r cpu.in
{
  header cpu "pip installed it in an empty environment, pip freeze listed it."
  echo "# A version after '+' (which build of PyTorch it was) is left out."
  "$python" -m pip freeze --all | grep -v '^pip==' | sed 's/+[a-z0-9]*$//'
} > "$scratch/cpu.txt"

# shellcheck disable=SC2086
"$python" -m pip install --quiet ${PIP_ARGS:-} uv
{
  header cuda "uv pip compile. Everything that sglang needs, without sglang itself."
  "$scratch/venv/bin/uv" pip compile --quiet --no-header --no-emit-package sglang \
    --python-version 3.11 --python-platform x86_64-manylinux_2_34 cuda.in |
    sed '/^# The following packages were excluded/,$d'
} > "$scratch/cuda.txt"

mv "$scratch/cpu.txt" "$scratch/cuda.txt" .
