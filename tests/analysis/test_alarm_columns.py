"""When a trace or a loss along training says that memorization begins."""

import math

import numpy as np
import pytest

from analysis.store.alarm_columns import Series, alarm_columns

NAN = math.nan


def series(values, errors=0.0):
    count = len(values)
    return Series(np.arange(1, count + 1), np.array(values, dtype=float), np.full(count, float(errors)))


@pytest.mark.parametrize(
    ("values", "errors", "epoch"),
    [
        pytest.param([4, 2, 1, 2], 0, 4, id="it turned and rose"),
        pytest.param([4, 2, 1, 1.4], 0, math.inf, id="it rose by less than half"),
        pytest.param([4, 3, 2, 1], 0, math.inf, id="it only fell"),
        pytest.param([1, 2, 1, 4], 0, 2, id="the first rise counts"),
        pytest.param([4, 1, 2, 3], 0.6, 4, id="a rise within two errors is none"),
        pytest.param([1], 0, math.inf, id="one value says nothing"),
    ],
)
def test_the_alarm_is_the_first_clear_rise_above_the_lowest_earlier_value(values, errors, epoch):
    assert series(values, errors).alarm() == epoch


@pytest.mark.parametrize(("values", "decades"), [([4, 1, 10, 2], 1), ([4, 2, 1], 0), ([10, 1, 3, 0.1, 1], 1)])
def test_the_rise_is_the_largest_one_after_a_lowest_value_in_decades(values, decades):
    assert series(values).rise() == pytest.approx(decades)


def history(layers, whole, losses=(2.0, 1.5, 1.2, 1.1), converged=(1, 1, 1, 1)):
    found = {"train_loss": np.array(losses), "probe_trace_observed": np.array(whole, dtype=float)}
    found["probe_trace_low_observed"] = found["probe_trace_high_observed"] = found["probe_trace_observed"]
    flags = np.array(converged, dtype=float)
    found["probe_trace_converged_observed"] = found["probe_layer_traces_converged_observed"] = flags
    for name, values in layers.items():
        found[f"probe_trace_of_{name}_observed"] = np.array(values, dtype=float)
        found[f"probe_trace_of_{name}_error_observed"] = np.zeros(len(values))
    return found


def test_the_first_layer_to_rise_raises_the_layers_alarm():
    columns = alarm_columns(
        history({"a": [4, 2, 4, 5], "b": [4, 3, 2, 1]}, [8, 5, 6, 9]), ["a", "b"], best_epoch=2
    )
    assert columns["layer_alarm"] == columns["trace_alarm"] == 1
    # the layer's alarm comes in epoch 3, the whole trace's in epoch 4
    assert (columns["layer_alarm_lead"], columns["trace_alarm_lead"]) == (-1, -2)
    assert columns["layer_rise"] == pytest.approx(math.log10(2.5))


def test_a_run_without_alarm_counts_as_one_with_an_alarm_in_its_last_epoch():
    columns = alarm_columns(history({"a": [4, 3, 2, 1]}, [4, 3, 2, 1]), ["a"], best_epoch=4)
    assert (columns["layer_alarm"], columns["layer_alarm_lead"]) == (0, 0)


def test_the_losses_alarm_is_raised_where_the_loss_falls_faster_again():
    losses = [2.0, 1.5, 1.4, 1.3, 1.0]
    found = history({"a": [5, 4, 3, 2, 1]}, [5, 4, 3, 2, 1], losses, converged=[1] * 5)
    assert alarm_columns(found, ["a"], best_epoch=5)["loss_alarm_lead"] == 0
    assert alarm_columns(found, ["a"], best_epoch=5)["loss_alarm"] == 1


UNKNOWN = {
    "not probed": {"train_loss": np.ones(4)},
    "a trace that did not converge": history({"a": [4, 2, 4, 5]}, [8, 5, 6, 9], converged=(1, 0, 1, 1)),
    "a trace below zero": history({"a": [4, -2, 4, 5]}, [8, -5, 6, 9]),
    "a trace that is not a number": history({"a": [4, NAN, 4, 5]}, [8, NAN, 6, 9]),
    "one probe": history({"a": [4, NAN, NAN, NAN]}, [4, NAN, NAN, NAN], converged=(1, NAN, NAN, NAN)),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_known_whole_has_no_alarm(case):
    assert all(math.isnan(value) for value in alarm_columns(UNKNOWN[case], ["a"], best_epoch=2).values())
