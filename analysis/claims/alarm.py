"""E13: the traces of single layers along training, as an alarm that memorization begins."""

from __future__ import annotations

from analysis.claims.claim import Claim
from analysis.claims.differences import Level
from analysis.claims.quantities import DECADES, DECADES_MARGIN, POINT, Quantity, less, register_quantity
from analysis.claims.sample_quantities import above_half
from analysis.claims.trends import Trend
from analysis.claims.variants import SGD

RAISED_BY = {
    "layer": "a weight matrix's trace",
    "trace": "the whole trace",
    "loss": "the training loss's fall",
}
PROBED = (
    'training.probe_epochs from the first epochs on, with training.probe_measures = ["trace", "layer_traces"], and an '
    "index of the runs of this version"
)
EPOCHS = 2.0
"""An alarm so many epochs after the best one still comes with it."""


def _quantities() -> dict[str, Quantity]:
    found = {}
    for name, words in RAISED_BY.items():
        found[f"{name}_alarm"] = Quantity(
            f"share of runs with an alarm by {words}",
            (f"{name}_alarm",),
            "share",
            margin=2 * POINT,
            needs=PROBED,
            never_negative=True,
        )
        found[f"{name}_alarm_lead"] = Quantity(
            f"epochs from the alarm by {words} to the best test accuracy",
            (f"{name}_alarm_lead",),
            "epochs",
            margin=EPOCHS,
            needs=PROBED,
        )
    for name in ("layer", "trace"):
        found[f"{name}_rise"] = Quantity(
            f"rise of {RAISED_BY[name]} after its lowest value",
            (f"{name}_rise",),
            DECADES,
            margin=DECADES_MARGIN,
            needs=PROBED,
            never_negative=True,
        )
    return (
        found
        | {
            # a share is never negative: only a share of more than one half says something
            "layer_alarm_often": Quantity(
                f"share of runs with an alarm by {RAISED_BY['layer']}, less 1/2",
                ("layer_alarm",),
                "share",
                of=above_half,
                margin=2 * POINT,
                needs=PROBED,
            )
        }
        | {
            f"layer_before_{name}": Quantity(
                f"epochs from the alarm by {RAISED_BY['layer']} to that by {RAISED_BY[name]}",
                ("layer_alarm_lead", f"{name}_alarm_lead"),
                "epochs",
                of=less,
                margin=EPOCHS,
                needs=PROBED,
            )
            for name in ("trace", "loss")
        }
    )


for _name, _quantity in _quantities().items():
    register_quantity(_name, _quantity)

CLAIMS = (
    Claim(
        "E13",
        "The traces of single layers warn without clean data: with wrong labels a layer's trace along training turns "
        "and rises, no later than with the best test accuracy, and the more the more labels are wrong.",
        "Bolshim and Kugaevskikh 2026 (arXiv:2605.25674), who tell networks that memorize labels from others by a rule "
        "that is calibrated on the others; the alarm's lead ours to test",
        [Level("layer_alarm_lead", SGD, 1, non_inferior=True), Trend("layer_rise", SGD, 1)],
        controls=[
            Level("layer_alarm_often", SGD, 1),
            Level("layer_alarm", SGD, 0, clean=True),
            # does the whole trace or the training loss, which costs nothing, tell it as well?
            *(Level(f"{name}_alarm_lead", SGD, 1, non_inferior=True) for name in ("trace", "loss")),
            *(Level(f"{name}_alarm", SGD, 0, clean=True) for name in ("trace", "loss")),
            *(Level(f"layer_before_{name}", SGD, 1) for name in ("trace", "loss")),
            Trend("trace_rise", SGD, 1),
        ],
        changed="its first control asked for a share above 0 at first, which could not fail; now for one above 1/2",
    ),
)
