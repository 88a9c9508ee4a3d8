"""`selection.per_seed`: each seed of a study has its own choice of hyper-parameters."""

import json

from analysis import store
from tests.analysis.tiny_study import TINY, run_tiny

PER_SEED = (
    TINY.replace('name = "plain"\nlabel = "SGD"', 'name = "sam"\nrho = [0.05, 5.0]')
    + "[selection]\nper_seed = true\n"
)


def test_each_run_is_trained_with_what_its_own_trials_favor(tmp_path):
    out = tmp_path / "out"
    outcome, _ = run_tiny(tmp_path, out, PER_SEED)
    assert not outcome.failed
    for seed in (0, 1):
        scores = {
            rho: store.scalars(next(out.glob(f"selection/**/rho-{rho}/seed{(seed + 1) * 10_000 + 1000}.h5")))[
                "test_accuracy"
            ]
            for rho in (0.05, 5.0)
        }
        chosen = store.scalars(next(out.glob(f"runs/**/seed{seed}.h5")))
        assert json.loads(chosen["hyperparameters"])["rho"] == max(scores, key=scores.__getitem__)
    assert len(list(out.glob("selection/**/*.h5"))) == 4
