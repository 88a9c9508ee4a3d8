"""What the pages of findings say of a deeper network, human labels, width, regularizers, alarms and SAM's controls."""

import pytest

from tests.doc_pages import assert_said, table_named

LAST = "clean test accuracy, last epoch"


def effects_of(study):
    return table_named(f"{study}-verdicts").set_index("effect")


def numbers(effects, name, scale=1.0, digits=2):
    """Estimate and interval."""
    estimate, *ends = scale * effects.loc[name, ["estimate", "low", "high"]]
    low, high = sorted(ends)
    return f"{estimate:.{digits}f}", f"[{low:.{digits}f}, {high:.{digits}f}]"


def test_what_is_said_of_the_width_is_in_the_tables():
    effects = effects_of("widths")
    assert set(effects["claim_verdict"]) == {"inconclusive"}
    gain, interval = numbers(effects, f"{LAST}: SAM less SGD against width > 0")
    eigenvalue, _ = numbers(effects, "top eigenvalue, observed labels: SAM less SGD against width < 0")
    noisy = table_named("widths-results").query("noise_rate == 0.4").set_index("method")
    accuracy, memorized = 100 * noisy["test_accuracy_mean"], 100 * noisy["memorized_mean"]
    wide = (32, 128, 512)
    gains = [f"{accuracy[f'SAM, width {width}'] - accuracy[f'SGD, width {width}']:.1f}" for width in wide]
    shares = [f"{memorized[f'SAM, width {width}']:.0f}%" for width in wide]
    assert_said(
        {
            "findings/flatness": (
                f"+{gain} of accuracy per tenfold number of weights {interval}",
                f"(+{eigenvalue} decades)",
                f"({accuracy['SAM, width 8']:.1f}% where SGD has {accuracy['SGD, width 8']:.1f}%)",
                "gain is {}, {} and {} points, and SAM memorizes {}, {} and {}".format(*gains, *shares),
            )
        }
    )


def test_what_is_said_of_regularizers_is_in_the_tables():
    effects = effects_of("regularizers")
    assert set(effects["claim_verdict"]) == {"contradicted in these cells"}
    pairs = [f"SGD with {name} less SGD" for name in ("weight decay", "random crops")]

    def of_both(quantity, sign=">"):
        return [numbers(effects, f"{quantity}: {pair} {sign} 0")[0] for pair in pairs]

    points = [" points ".join(numbers(effects, f"{LAST}: {pair} > 0", 100, 1)) for pair in pairs]
    sharper, flatter = (numbers(effects, f"sharpness, observed labels: {pair} > 0") for pair in pairs)
    clean, interval = numbers(effects, f"sharpness, observed labels, without wrong labels: {pairs[0]} > 0")
    assert_said(
        {
            "findings/flatness": (
                f"+{points[0]} and +{sharper[0]} decades of sharpness {sharper[1]}",
                f"+{points[1]} and {flatter[0]} decades {flatter[1]}",
                "how much each memorizes does ({} and {} of".format(*of_both("wrong labels memorized", "<")),
                "tr JᵀJ falls with both ({} and {} decades)".format(*of_both("tr J^T J, observed labels")),
                "rises with both (+{} and +{})".format(
                    *of_both("norm of the functional Hessian, observed labels")
                ),
                f"makes sharpness {clean} decades larger {interval}",
                "found ({} points {})".format(
                    *numbers(effects, f"{LAST}, without wrong labels: {pairs[0]} > 0", 100, 1)
                ),
            )
        }
    )


def test_what_is_said_of_alarms_is_in_the_table():
    effects = effects_of("alarms")
    assert set(effects["claim_verdict"]) == {"inconclusive"}
    layer, loss = "a weight matrix's trace", "the training loss's fall"
    rise = numbers(effects, f"rise of {layer} after its lowest value against noise rate, SGD > 0")
    lead = numbers(effects, f"epochs from the alarm by {layer} to the best test accuracy, SGD > -2", -1, 1)
    earlier = numbers(
        effects, f"epochs from the alarm by {layer} to that by the whole trace, SGD > 0", digits=1
    )
    share = "share of runs with an alarm by {}, SGD{}"
    clean = ", without wrong labels = 0, within the margin"
    assert effects.loc[share.format(f"{layer}, less 1/2", " > 0"), "estimate"] == 0.5
    assert effects.loc[share.format(layer, clean), "estimate"] == 0
    assert effects.loc[share.format(loss, clean), "estimate"] == 1
    assert_said(
        {
            "findings/flatness": (
                f"(+{rise[0]} decades per 100% {rise[1]})",
                f"{lead[0]} epochs after the best test accuracy {lead[1]}",
                f"by {earlier[0]} epochs {earlier[1]}",
            )
        }
    )


def test_what_is_said_of_sams_controls_is_in_the_tables():
    effects = effects_of("sam-controls")
    assert set(effects["claim_verdict"]) == {"inconclusive"}
    results = table_named("sam-controls-results").set_index(["method", "noise_rate"])
    accuracy, spread = 100 * results["test_accuracy_mean"], 100 * results["test_accuracy_std"]
    collapsed = [("SAM, oracle", 0.2), ("SAM, clean perturbation", 0.2)]
    assert set(spread[spread > 10].index) == set(collapsed)
    gain = accuracy - accuracy["SAM"].reindex(accuracy.index, level="noise_rate")
    # three values of which one lies apart have this third one
    lowest = [accuracy[place] - 2 / 3**0.5 * spread[place] for place in collapsed]
    others = [
        (3 * accuracy[place] - low) / 2 - accuracy["SAM", 0.2]
        for place, low in zip(collapsed, lowest, strict=True)
    ]
    warmed = numbers(effects, f"{LAST}: SAM with a warm-up less SAM > 0", 100, 1)
    ceiling = [f"{gain['SAM, clean samples', rate]:.1f}" for rate in (0.2, 0.4)]
    assert others == pytest.approx([1.1, 0.1], abs=0.1)
    assert_said(
        {
            "findings/the-method": (
                "at 20% ({:.0f}% and {:.0f}%)".format(*lowest),
                f"at 20% and {gain['SAM, oracle', 0.4]:.1f} at 40%",
                f"the clean perturbation 0.1 and {gain['SAM, clean perturbation', 0.4]:.1f}",
                "SAM that never sees a wrong label, is {} and {} points above".format(*ceiling),
                f"spread by {spread['SAM', 0.4]:.1f} points",
                f"SAM was {88.0 - accuracy['SAM', 0.4]:.1f} points more accurate (88.0%)",
                f"no difference was found (+{warmed[0]} points {warmed[1]})",
            )
        }
    )


def test_what_is_said_of_the_deeper_resnet_is_in_its_tables():
    effects = effects_of("redrawn-resnet20")
    assert set(effects["claim_verdict"]) == {"inconclusive"}
    results = table_named("redrawn-resnet20-results").set_index("noise_kind")
    fixed, fresh = (results.loc[kind] for kind in ("symmetric", "symmetric, redrawn each step"))
    less = "SGD: redrawn labels less fixed ones"
    jacobian, relative, eigenvalue, functional = (
        effects.loc[f"{name}, {less} < 0"]
        for name in (
            "tr J^T J, observed labels",
            "sharpness elementwise, true labels",
            "top eigenvalue, observed labels",
            "norm of the functional Hessian, observed labels",
        )
    )
    accuracy = effects.loc[f"{LAST}, {less} > 0"]
    assert {jacobian["verdict"], accuracy["verdict"]} == {"supported in these cells"}
    shares = [f"{100 * run['test_accuracy_mean']:.0f}%" for run in (fresh, fixed)]
    assert_said(
        {
            "findings/redrawn-labels": (
                f"a tr JᵀJ {-jacobian['estimate']:.2f} decades below that of fixed ones, and an accuracy "
                f"{100 * accuracy['estimate']:.0f} points higher ({shares[0]} and {shares[1]})",
                f"Relative sharpness is {-relative['estimate']:.2f} decades lower, with an interval from "
                f"{-relative['low']:.2f} decades lower to {relative['high']:.2f} higher",
                f"{eigenvalue['estimate']:.2f} decades *higher* with redrawn labels, the functional norm "
                f"{functional['estimate']:.2f}",
                f"are memorized ({fixed['memorized_mean']:.0%}), and the network is sure of all (uncertainty "
                f"{fixed['uncertainty_observed_mean']:.4f} against {fresh['uncertainty_observed_mean']:.2f})",
            ),
            "answer": (
                f"in a ResNet-20 tr JᵀJ is {-jacobian['estimate']:.2f} decades lower and the accuracy "
                f"{100 * accuracy['estimate']:.0f} points higher",
                f"tr JᵀJ {jacobian['estimate']:.2f} decades, accuracy +{100 * accuracy['estimate']:.0f} points, "
                "no difference in relative sharpness found | F1 (inconclusive), 3 pairs",
            ),
        }
    )


def test_what_is_said_of_labels_that_people_gave_is_in_the_tables():
    effects = effects_of("human-labels")
    verdicts = effects.groupby("claim")["claim_verdict"].first()
    assert verdicts["G1"] == "contradicted in these cells"
    assert verdicts["M1"] == "inconclusive"
    sam, sam_interval = numbers(effects, f"{LAST}: SAM less SGD > 0", -100, 1)
    ncsam, ncsam_interval = numbers(effects, f"{LAST}: NCSAM less SAM > 0", 100, 1)
    opposite, opposite_interval = numbers(
        effects, f"{LAST}: NCSAM, opposite sign less NCSAM = 0, within the margin", 100, 1
    )
    imitation, imitation_interval = numbers(effects, "cosine of g* and g_noise, NCSAM > 0")
    means = table_named("human-labels-results").set_index("method")
    memorized = 100 * means["memorized_mean"]
    assert_said(
        {
            "findings/text-and-people": (
                f"SAM is {sam} points less accurate than SGD here {sam_interval}, and NCSAM {ncsam} points more than "
                f"SAM {ncsam_interval}",
                f"for {memorized['SGD']:.0f}% of the wrongly labeled samples under SGD and for "
                f"{memorized['NCSAM']:.0f}% under NCSAM",
                f"with the opposite sign it is {opposite} points better {opposite_interval}, with random flips it ends "
                f"at {100 * means.loc['NCSAM, random flips', 'test_accuracy_mean']:.1f}%",
                f"their cosine is {imitation} {imitation_interval}",
            )
        }
    )
