#!/usr/bin/env bash
# Makes .venv and installs Kinobeam into it, editable. Run by the Makefile; safe to run again.
# PYTHON names the interpreter (python3); KINOBEAM_SKIP_BUILD=1 leaves out the native module.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${PYTHON:-python3}
cpu_index=https://download.pytorch.org/whl/cpu

if ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "kinobeam: expected Python 3.11 or later, found: $("$base" --version 2>&1 || true)." \
       "Install one and run: make PYTHON=python3.11" >&2
  exit 1
fi
[ -x .venv/bin/python ] || "$base" -m venv .venv
install=(.venv/bin/python -m pip install --quiet -c constraints.txt)

# Without an NVIDIA GPU the CPU build of torch saves gigabytes; 2.13.0+cpu sorts above 2.13.0.
torch_source=()
if ! nvidia-smi > /dev/null 2>&1 && .venv/bin/python - "$cpu_index/torch/" << 'PY' > /dev/null 2>&1; then
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=5).read(1)
PY
  torch_source=(--extra-index-url "$cpu_index")
fi
"${install[@]}" "${torch_source[@]}" torch
"${install[@]}" setuptools wheel pybind11 cmake ninja
"${install[@]}" --no-build-isolation -e '.[report,dev]'
touch .venv/.installed
