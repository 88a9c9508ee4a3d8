"""A tracker beside trainings whose Hessians are small enough to be written down."""

import math
import threading

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from landscape import Objective, Tracker, load
from landscape.tracking import measures

D = torch.float64


class Training:
    """A small network in a training with momentum, on labels of which some are wrong."""

    def __init__(self, learning_rate=0.2, dropout=0.0):
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(96, 6, dtype=D, generator=generator)
        self.clean = (self.inputs @ torch.randn(6, 3, dtype=D, generator=generator)).argmax(1)
        wrong = torch.rand(96, generator=generator) < 0.2
        self.observed = torch.where(wrong, (self.clean + 1) % 3, self.clean)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            layers = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3)
            self.model = nn.Sequential(*layers).to(D)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=learning_rate, momentum=0.9)
        self.loss = nn.CrossEntropyLoss()
        self.order = torch.Generator().manual_seed(2)

    def objective(self, targets=None):
        return Objective(self.model, self.loss, (self.inputs, self.observed if targets is None else targets))

    def step(self):
        rows = torch.randperm(96, generator=self.order)[:32]
        self.model.train()
        self.optimizer.zero_grad()
        self.loss(self.model(self.inputs[rows]), self.observed[rows]).backward()
        self.optimizer.step()

    def weights(self):
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])


def eigenvalues_of(objective):
    hessian = objective.hvp(torch.eye(objective.n_parameters, dtype=D))
    return torch.linalg.eigvalsh((hessian + hessian.T) / 2)


def test_eigenvalues_along_a_training_are_those_of_dense_hessians():
    training = Training()
    wanted = measures.top_eigenvalues(k=1, tol=0.05)
    tracker = Tracker(training.objective(), every=3, measures=[wanted], at_most=None)
    truth = []
    for step in range(1, 61):
        training.step()
        tracker.step(training.model, training.optimizer)
        if step % 3 == 0:
            truth.append(eigenvalues_of(training.objective())[-1].item())
    track = tracker.track()
    found, residual = track.of("top_eigenvalue"), track.of("top_eigenvalue_residual")
    converged = track.of("top_eigenvalue_converged") == 1
    truth = np.array(truth)
    assert list(track.step) == list(range(3, 61, 3))
    assert converged.all()
    assert (residual <= 0.05 * found).all()
    assert (np.abs(found - truth) <= residual).all()
    # it is followed in part, and searched for anew in part
    products = track.of("top_eigenvalue_products")
    assert (products <= 4).any()
    assert (products > 10).any()


def test_an_eigenvalue_that_has_hardly_moved_takes_at_most_4_products():
    training = Training(learning_rate=0.01)
    for _ in range(100):
        training.step()
    tracker = Tracker(training.objective(), every=1, measures=["top_eigenvalues"], at_most=None)
    for _ in range(10):
        training.step()
        tracker.step(training.model, training.optimizer)
    products = tracker.track().of("top_eigenvalue_products")
    assert (products[1:] <= 4).all()
    assert (tracker.track().of("top_eigenvalue_converged") == 1).all()


def test_an_eigenvalue_for_which_the_products_were_too_few_is_not_called_converged():
    training = Training()
    few = measures.top_eigenvalues(tol=1e-6, max_products=4)
    tracker = Tracker(training.objective(), every=1, measures=[few], at_most=None)
    for _ in range(3):
        training.step()
        tracker.step(training.model)
    assert (tracker.track().of("top_eigenvalue_converged") == 0).all()
    assert (tracker.track().of("top_eigenvalue_residual") > 0).all()


def test_each_measure_is_the_one_of_its_function_at_the_models_weights():
    training = Training()
    chosen = [
        "loss",
        measures.trace(max_products=20),
        "layer_traces",
        measures.sharpness(rho=0.1),
        "gradient_noise",
    ]
    tracker = Tracker(training.objective(), measures=chosen, at_most=None)
    for _ in range(4):
        training.step()
    tracker.end_epoch(training.model)
    here, track = training.objective(), tracker.track()
    assert track.of("loss")[0] == pytest.approx(here.value(), rel=1e-12)
    assert track.of("accuracy")[0] == here.evaluate().accuracy
    # the intervals are those of 95%: wider by 3 they miss the truth in one of 10^8 cases
    true_trace = eigenvalues_of(here).sum().item()
    half = (track.of("trace_high")[0] - track.of("trace_low")[0]) / 2
    assert abs(track.of("trace")[0] - true_trace) <= 3 * half
    layers = sum(track.of(f"trace_of_{name}")[0] for name in here.names)
    assert layers == pytest.approx(true_trace, rel=0.5)
    assert track.of("sharpness")[0] == pytest.approx(landscape.sharpness(here, rho=0.1).value, rel=0.02)
    assert track.of("gradient_norm")[0] == pytest.approx(here.gradient().norm().item(), rel=1e-10)


@pytest.mark.parametrize("way", ["step", "attach"])
@pytest.mark.parametrize("every", [1, 2, "epoch"])
def test_movement_and_critical_sharpness_see_the_optimizers_last_step(way, every):
    training = Training()
    begin = training.weights()
    tracker = Tracker(
        {"observed": training.objective(), "clean": training.objective(training.clean)},
        every=every,
        measures=["movement", "critical_sharpness"],
        at_most=None,
    )
    detach = tracker.attach(training.model, training.optimizer) if way == "attach" else None
    for _ in range(4):
        before = training.weights()
        training.step()
        if way == "step":
            tracker.step(training.model, training.optimizer)
    after = training.weights()
    if every == "epoch":
        tracker.end_epoch(training.model)
    track = tracker.track()
    assert track.of("update_norm", "observed")[-1] == pytest.approx((after - before).norm().item(), rel=1e-12)
    distance = (after - begin).norm().item()
    assert track.of("distance_from_beginning", "observed")[-1] == pytest.approx(distance, rel=1e-12)
    for name, targets in (("observed", training.observed), ("clean", training.clean)):
        objective = training.objective(targets)
        low = 2 / track.of("critical_sharpness", name)[-1]
        if 0 < low < math.inf:

            def rise(share, objective=objective):
                point = before + share * (after - before) / 0.2
                return objective.value(point) - objective.value(before)

            # the bounds are within a tenth of each other
            assert rise(0.94 * low) <= 0 < rise(1.06 * low)
    if detach is not None:
        detach()
        training.step()
        assert tracker.steps == 4


def test_a_training_is_the_same_with_a_tracker_as_without():
    def trained(tracked):
        training = Training(dropout=0.3)
        torch.manual_seed(5)
        tracker = Tracker(
            training.objective(), every=2, measures=[*measures.BY_NAME, "layer_traces"], at_most=None
        )
        for _ in range(6):
            training.step()
            if tracked:
                tracker.step(training.model, training.optimizer)
        return training.weights(), torch.get_rng_state(), training.model[1].running_mean

    with torch.random.fork_rng():
        for one, other in zip(trained(True), trained(False), strict=True):
            assert torch.equal(one, other)


def test_a_diverged_training_is_tracked_as_nan():
    training = Training()
    tracker = Tracker(
        training.objective(), every=1, measures=[*measures.BY_NAME, "layer_traces"], at_most=None
    )
    training.step()
    tracker.step(training.model, training.optimizer)
    with torch.no_grad():
        training.model[0].weight.fill_(math.nan)
    tracker.step(training.model, training.optimizer)
    track = tracker.track()
    assert np.isnan(track.values[1]).all()
    assert track.measured[1].all()


def test_the_file_is_whole_after_every_look_and_read_while_training_goes_on(tmp_path):
    path = tmp_path / "track.h5"
    training = Training()
    tracker = Tracker(training.objective(), every=1, measures=["loss"], at_most=None, file=path)
    training.step()
    tracker.step(training.model)
    stop, seen = threading.Event(), []

    def read():
        while not stop.is_set():
            seen.append(len(load(path, "track").step))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        training.step()
        tracker.step(training.model)
    stop.set()
    reader.join()
    assert seen
    assert seen == sorted(seen)
    stored, held = load(path, "track"), tracker.track()
    assert len(stored.step) == 11
    np.testing.assert_array_equal(stored.values, held.values)
    assert list(stored.metric) == list(held.metric)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("way", ["attach", "begin"])
def test_distances_begin_where_the_training_does_though_the_objective_was_made_at_other_weights(way):
    training = Training()
    objective = training.objective()
    for _ in range(3):
        training.step()
    begin = training.weights()
    tracker = Tracker(objective, every=2, measures=["movement"], at_most=None)
    if way == "attach":
        tracker.attach(training.model, training.optimizer)
    else:
        tracker.begin(training.model)
    for _ in range(2):
        training.step()
        if way == "begin":
            tracker.step(training.model, training.optimizer)
    track, distance = tracker.track(), (training.weights() - begin).norm().item()
    assert track.of("distance_from_beginning") == pytest.approx([distance], rel=1e-12)
    assert track.of("distance_since_last_look") == pytest.approx([distance], rel=1e-12)


def test_a_model_of_other_layers_is_refused_when_the_tracker_is_attached():
    training = Training()
    tracker = Tracker(training.objective(), measures=["movement"])
    with pytest.raises(ValueError, match="^weights: "):
        tracker.attach(nn.Linear(2, 2), training.optimizer)


@pytest.mark.parametrize("rates", [(0.0, 0.1), (None, None), (0.0, 0.0)])
def test_an_optimizer_whose_first_learning_rate_is_no_length_ends_no_training(rates):
    training = Training()
    tracker = Tracker(training.objective(), every=1, measures=["critical_sharpness"], at_most=None)
    for rate in rates:
        training.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": rate})
    training.step()
    training.optimizer.param_groups[0]["lr"] = rates[0]
    tracker.step(training.model, training.optimizer)
    tracker.step(training.model, training.optimizer)
    assert len(tracker.track().step) == 2


def test_the_track_of_an_earlier_training_is_not_taken_for_that_of_a_new_one(tmp_path):
    training, file = Training(), tmp_path / "track.h5"
    tracker = Tracker(training.objective(), every=1, measures=["loss"], at_most=None, file=file)
    training.step()
    tracker.step(training.model, training.optimizer)
    assert len(load(file, "track").step) == 1
    Tracker(training.objective(), every=1, measures=["loss"], file=file)
    assert len(load(file, "track").step) == 0


def test_measures_that_two_trackers_share_are_measured_alike_by_both():
    shared = [measures.top_eigenvalues(), measures.critical_sharpness()]
    found = []
    for _ in range(2):
        training = Training()
        tracker = Tracker(training.objective(), every=2, measures=shared, at_most=None)
        for _ in range(8):
            training.step()
            tracker.step(training.model, training.optimizer)
        track = tracker.track()
        found.append([track.of("top_eigenvalue"), track.of("critical_learning_rate")])
    np.testing.assert_array_equal(found[0], found[1])


def test_a_critical_learning_rate_that_was_not_narrowed_down_is_not_called_converged():
    training = Training()
    tracker = Tracker(training.objective(), every=1, measures=["critical_sharpness"], at_most=None)
    for _ in range(6):
        training.step()
        tracker.step(training.model, training.optimizer)
    track = tracker.track()
    is_found = np.isfinite(track.of("critical_sharpness")) & (track.of("critical_sharpness") > 0)
    assert is_found.any()
    np.testing.assert_array_equal(track.of("critical_converged")[is_found], 1)
    # uphill the loss rises at once: there is no bracket, and no convergence
    backwards = Tracker(training.objective(), every=1, measures=["critical_sharpness"], at_most=None)
    gradient = training.objective().gradient()
    backwards.step(training.model, training.optimizer)
    parts = gradient.split([p.numel() for p in training.model.parameters()])
    with torch.no_grad():
        for parameter, part in zip(training.model.parameters(), parts, strict=True):
            parameter.add_(part.view(parameter.shape), alpha=1e-3)
    backwards.step(training.model, training.optimizer)
    assert backwards.track().of("critical_sharpness")[-1] == math.inf
    assert backwards.track().of("critical_converged")[-1] == 0


def test_logs_get_what_was_measured_by_metric_and_objective():
    training = Training()
    told = []
    tracker = Tracker(
        {"observed": training.objective(), "clean": training.objective(training.clean)},
        measures=["loss"],
        at_most=None,
        log=told.append,
    )
    tracker.end_epoch(training.model)
    assert set(told[0]) == {
        *("step", "epoch", "tracking_share"),
        *(f"{metric}/{name}" for metric in ("loss", "accuracy") for name in ("observed", "clean")),
    }
    assert told[0]["loss/clean"] == pytest.approx(training.objective(training.clean).value())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"every": 0}, "every"),
        ({"every": "step"}, "every"),
        ({"measures": ["losses"]}, "measures"),
        ({"measures": []}, "measures"),
        ({"measures": ["loss", "loss"]}, "measures"),
        ({"at_most": 0}, "at_most"),
    ],
)
def test_an_argument_out_of_range_is_named(options, field):
    with pytest.raises(ValueError, match=f"^{field}:"):
        Tracker(Training().objective(), **options)


def test_a_model_in_the_objectives_place_is_refused():
    with pytest.raises(TypeError, match="objectives: must be an Objective"):
        Tracker(nn.Linear(2, 2))


@pytest.mark.parametrize("at_most", [None, 1e9])
def test_an_objective_whose_labels_are_replaced_is_measured_until_then_and_the_training_goes_on(at_most):
    training = Training()
    objectives = {"observed": training.objective(), "clean": training.objective(training.clean)}
    tracker = Tracker(objectives, every=1, measures=["loss", "movement"], at_most=at_most)
    tracker.attach(training.model, training.optimizer)
    training.step()
    training.observed[:5] = training.clean[:5]
    with pytest.warns(
        UserWarning, match=r"^objectives: 'observed' is measured no longer.*changed in place.*clones"
    ):
        training.step()
    training.step()
    track = tracker.track()
    assert list(np.isfinite(track.of("loss", "observed"))) == [True, False, False]
    assert np.isfinite(track.of("loss", "clean")).all()
    assert track.of("loss", "clean")[2] == training.objective(training.clean).value()
