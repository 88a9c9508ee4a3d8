#!/usr/bin/env bash
# What only a GPU can show, in one go: the tests on CUDA, then the benchmarks; each part is given some minutes.
#
#     pip install -c constraints.txt -e '.[bench]' pytest loss-landscapes==3.0.6
#     bash bench/gpu.sh results/gpu          # a log for each part
#
# The training run beside the paper's Fig. 1 takes longer: studies/training-resnet18.toml.
set -u -o pipefail
cd "$(dirname "$0")/.."
out=${1:-results/gpu}
mkdir -p "$out"
failed=0

part() {
    local name=$1 seconds=$2
    shift 2
    echo "== $name"
    timeout "$seconds" "$@" 2>&1 | tee "$out/$name.log" || { echo "== $name: failed or out of time"; failed=1; }
}

environment=$(python3 -c 'import sys; print(sys.prefix)')
part tests 150 python3 -m pytest -p no:cacheprovider tests/test_cuda.py
part curvature 180 python3 bench/curvature.py --device cuda --samples 4096 --chunk 1024 --draws 20 --widths 1024 2700
part training 150 python3 bench/training.py --device cuda --seeds 1
part surfaces 120 python3 bench/surfaces.py --device cuda --steps 25 --loss-landscapes "$environment"
exit $failed
