#!/usr/bin/env bash
# The first minutes on a machine with a GPU, as one command: what the tests skip without one, then figures.
#   tests/benchmarks/gpu/check.sh OUT          # at most 8 minutes; OUT/check.json and a table
#   tests/benchmarks/gpu/check.sh OUT --dry    # everything in small, on a processor, without what a bare machine lacks
# It needs Python 3.11 or newer with torch, torchvision, numpy, scipy, scikit-learn, opencv, typer and rich; pytest for the tests.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
export PYTHONPATH="$here:$here/..:$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" "$here/check.py" "$@"
