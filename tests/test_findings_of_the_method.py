"""What the pages of findings say of NCSAM's mechanism, its settings and the transformer is in the tables."""

from tests.doc_pages import assert_said, table_named


def test_what_is_said_of_the_transformer_is_in_the_table():
    effects = table_named("word-languages-verdicts").set_index("effect")
    results = table_named("word-languages-results").set_index(["noise_rate", "method"])
    memorized = 100 * results["memorized_mean"].loc[0.4]
    accuracy = 100 * results["test_accuracy_mean"]
    assert accuracy.loc[0.4].max() - accuracy.loc[0.4].min() < 0.2
    against_sam = effects.loc["clean test accuracy, last epoch: NCSAM less SAM > 0"]
    imitated = effects.loc["cosine of g* and g_noise, NCSAM > 0"]
    assert imitated["verdict"] == "contradicted in these cells"
    assert_said(
        {
            "findings/text-and-people": (
                "{:.1f}% of the wrong labels with AdamW, {:.1f}% with SAM and {:.1f}% with NCSAM".format(
                    *memorized[["AdamW", "SAM", "NCSAM"]]
                ),
                f"NCSAM is {accuracy[0.0, 'AdamW'] - accuracy[0.0, 'NCSAM']:.1f} points behind AdamW",
                "labels is {:.2f} [{:.2f}, {:.2f}]".format(*imitated[["estimate", "low", "high"]]),
                "NCSAM less SAM is between {:.1f} and {:+.1f} points".format(
                    *(100 * against_sam[["low", "high"]])
                ),
            )
        }
    )


def points(effect, digits=1):
    """Estimate and interval in points."""
    return "{:+.{d}f} points [{:.{d}f}, {:.{d}f}]".format(
        *(100 * effect[["estimate", "low", "high"]]), d=digits
    )


def test_what_is_said_of_the_mechanism_is_in_the_table():
    table = table_named("mechanism-verdicts")
    effects = table.drop_duplicates("effect").set_index("effect")
    results = table_named("mechanism-results").set_index(["noise_rate", "method"])
    accuracy = "clean test accuracy, last epoch: {}"
    verdicts = effects["verdict"]
    for name in (
        "NCSAM less SAM > 0",
        "NCSAM less NCSAM, constant schedule > 0",
        "NCSAM less NCSAM, not projected > 0",
    ):
        assert verdicts[accuracy.format(name)] == "equivalent in these cells"
    for name in (", random direction", ", random flips", ", opposite sign", " without compensation"):
        assert verdicts[accuracy.format(f"NCSAM{name} less NCSAM = 0, within the margin")].startswith(
            "supported"
        )
    opposite, none, long = (
        effects.loc[accuracy.format(f"{name} less NCSAM = 0, within the margin")]
        for name in (
            "NCSAM, opposite sign",
            "NCSAM without compensation",
            "SAM with perturbations as long as NCSAM's",
        )
    )
    best = effects.loc["clean test accuracy, best epoch: SAM less SGD > 0"]
    turned = effects.loc["cosine of eps_SAM and eps_clean against noise rate, SAM < 0", "estimate"]
    drawn = effects.loc[
        "share of wrong labels among the drawn samples less that among all, NCSAM > 0", "estimate"
    ]
    true = effects.loc["mean temporary label precision: NCSAM less NCSAM, random flips > 0", "estimate"]
    imitated = effects.loc["cosine of g* and g_noise, NCSAM > 0"]
    by_flips = effects.loc["cosine of g* and g_noise, NCSAM, random flips > 0", "estimate"]
    gained = effects.loc["cosine with eps_clean gained by +s g* over SAM, same batches, NCSAM > 0"]
    oracle = effects.loc[accuracy.format("SAM, oracle less NCSAM > 0"), "estimate"]
    assert_said(
        {
            "findings/the-method": (
                f"equivalent in accuracy (G1: {points(effects.loc[accuracy.format('NCSAM less SAM > 0')])})",
                f"are {100 * effects.loc[accuracy.format('SAM less SGD > 0'), 'estimate']:.0f} points more accurate",
                f"SAM's gain is {points(best)[1:]}, inconclusive",
                f"without any compensation ({points(none)}) and with the opposite sign ({points(opposite)})",
                "is {:.0f} points less accurate [{:.0f}, {:.0f}]".format(
                    *(-100 * long[["estimate"]]), *(100 * long[["low", "high"]])
                ),
                f"spreads widely at 60% ({100 * results.loc[(0.6, 'SAM, rho 0.5'), 'test_accuracy_mean']:.1f}%)",
                f"from the clean one by {-turned:.2f} of a cosine",
                f"{100 * drawn:.1f} points more wrong labels than by chance, and {100 * true:.0f} points more true",
                "labels is {:.2f} [{:.2f}, {:.2f}] on average".format(*imitated[["estimate", "low", "high"]]),
                f"that of random flips is {by_flips:+.2f}",
                "perturbation is {:+.3f} [{:.3f}, {:+.3f}]".format(*gained[["estimate", "low", "high"]]),
                f"oracle) is {-100 * oracle:.1f} points *less* accurate than NCSAM: it memorizes "
                f"{100 * results.loc[(0.6, 'SAM, oracle'), 'memorized_mean']:.0f}% of the wrong labels at 60%",
            ),
            "answer": (f"{points(effects.loc[accuracy.format('NCSAM less SAM > 0')])} on Fashion-MNIST",),
        }
    )


def test_what_is_said_of_noise_and_flatness_over_six_series_is_in_the_table():
    table = table_named("static-cells-verdicts")
    assert set(table["claim_verdict"]) == {"inconclusive"}
    effects = table.set_index("effect")

    def of(name, digits=2):
        row = effects.loc[name]
        return "{:.{n}f} [{:.{n}f}, {:.{n}f}]".format(*row[["estimate", "low", "high"]], n=digits)

    def growth(name):
        return f"{name} against noise rate, SGD > 0"

    uncertainty = growth("uncertainty of the predictions, observed labels")
    jacobian = growth("largest eigenvalue of J^T J, observed labels")
    relative = growth("trace of the Gauss-Newton matrix to uncertainty, observed labels")
    observed, true, ratio = (
        f"sharpness, {name}: SAM less SGD {sign} 0"
        for name, sign in (
            ("observed labels", "<"),
            ("true labels", "<"),
            ("ratio of true to observed labels", ">"),
        )
    )
    accuracy = effects.loc["clean test accuracy, last epoch: SAM less SGD > 0"]
    least = table.query("claim == 'L1' and role == 'prediction'")["p"].min()
    signs = effects.loc[growth("tr J^T J, observed labels"), "verdict"]
    assert (signs, effects.loc[ratio, "verdict"]) == ("mixed", "equivalent")
    assert (
        {effects.loc[name, "verdict"] for name in (observed, true)} == {accuracy["verdict"]} == {"supported"}
    )
    assert_said(
        {
            "findings/flatness": (
                f"by {of(growth('top eigenvalue, observed labels'))}".replace(
                    " [", " decades per 100% wrong labels ["
                ),
                f"with true labels by {of(growth('sharpness, true labels'))}",
                f"it changes by {of(growth('sharpness, observed labels'))}",
                f"of the four predictions is {least:.3f}",
                f"the uncertainty grows by {of(uncertainty)}".replace(" [", " decades ["),
                f"eigenvalue falls by {-effects.loc[jacobian, 'estimate']:.2f}",
                f"relative to the uncertainty falls by {-effects.loc[relative, 'estimate']:.2f}",
                f"sharpness {of(observed)} with observed labels".replace(" [", " decades ["),
                f"and {effects.loc[true, 'estimate']:.2f} with true ones",
                f"ratio of the two is equivalent ({of(ratio)})",
                "by {:.1f} points at the last epoch [{:.1f}, {:.1f}]".format(
                    *100 * accuracy[["estimate", "low", "high"]]
                ),
            ),
            "answer": (
                f"by {effects.loc[growth('top eigenvalue, observed labels'), 'estimate']:.2f} decades per 100% and the "
                f"uncertainty by {effects.loc[uncertainty, 'estimate']:.2f}, while",
            ),
        }
    )


def test_what_is_said_of_the_settings_is_in_the_table():
    effects = table_named("ablations-verdicts").set_index("effect")
    results = table_named("ablations-results").set_index(["method", "noise_rate"])
    accuracy, memorized = 100 * results["test_accuracy_mean"], results["memorized_mean"]
    strengths = [f"NCSAM, kappa {kappa}" for kappa in ("0.03", "0.05", "0.2", "0.4")]
    of_strength = accuracy.loc[strengths].unstack()
    assert (of_strength.idxmax() == strengths[0]).all()
    assert (memorized.loc[strengths].unstack().idxmax() == strengths[-1]).all()
    lost = of_strength[0.4].max() - of_strength[0.4].min()
    ratios = accuracy.unstack().loc[
        ["NCSAM", *(f"NCSAM, flip ratio {ratio}" for ratio in (0.2, 0.3, 0.5, 0.6, 0.7))]
    ]
    whole = "clean test accuracy, last epoch{}"
    strength = 10 * effects.loc[whole.format(" against strength, NCSAM < 0"), ["estimate", "low", "high"]]
    constant = (
        100
        * effects.loc[whole.format(": NCSAM less NCSAM, constant schedule > 0"), ["estimate", "low", "high"]]
    )
    at_best = effects.loc["clean test accuracy, best epoch: NCSAM less NCSAM, constant schedule > 0"]
    projected = (
        100 * effects.loc[whole.format(": NCSAM less NCSAM, not projected > 0"), ["estimate", "low", "high"]]
    )
    best = "clean test accuracy, last epoch, NCSAM at {} the noise rate less best other one > 0"
    near = 100 * effects.loc[best.format("40%: best flip ratio within 0.1 of"), ["estimate", "low", "high"]]
    below = -100 * effects.loc[best.format("60%: best flip ratio below"), ["estimate", "high", "low"]]
    assert at_best["verdict"] == "equivalent in these cells"
    assert_said(
        {
            "findings/the-method": (
                "falls by {:.1f} points for each 0.1 of kappa [{:.1f}, {:.1f}]".format(
                    *(-strength[["estimate", "high", "low"]])
                ),
                f"at 40% kappa 0.4 is {lost:.1f} points less accurate than kappa 0.03",
                "is {:.1f} points better than a constant one [{:.1f}, {:.1f}]".format(*constant),
                f"equivalent at the best one ({100 * at_best['estimate']:.1f} points)",
                "last epoch is {:.1f} points better [{:.1f}, {:.1f}]".format(
                    *(-projected[["estimate", "high", "low"]])
                ),
                "is {:.1f} points more accurate than the best other one [{:.1f}, {:.1f}]".format(*near),
                "the rate {:.1f} points less than the best other one [{:.1f}, {:.1f}]".format(*below),
                f"moves by at most {(ratios.max() - ratios.min()).max():.1f} points",
            )
        }
    )


def test_what_is_said_of_early_noise_and_true_labels_in_the_quick_study_is_in_the_table():
    verdicts = table_named("quick-verdicts")
    of_claims = verdicts.drop_duplicates("claim").set_index("claim")["claim_verdict"]
    assert of_claims["E8"] == of_claims["S1"] == "contradicted in these cells"
    assert of_claims["E5"] == "supported in these cells"
    effects = verdicts.drop_duplicates("effect").set_index("effect")
    tenth = "mean over the first tenth of the epochs"
    early = (
        100 * effects.loc[f"wrong labels memorized, {tenth}: SAM less SGD < 0", ["estimate", "low", "high"]]
    )
    fitted = effects.loc[f"right labels fitted, {tenth}: SAM less SGD = 0, within the margin", "estimate"]
    equal = effects.loc[
        "wrong labels memorized when seven eighths of the right labels are first fitted: SAM less SGD < 0"
    ]
    assert equal["verdict"] == "inconclusive"
    lost = (
        -100
        * effects.loc[
            "clean test accuracy, last epoch: SAM, oracle less SAM > 0", ["estimate", "high", "low"]
        ]
    )
    step = effects[effects.index.str.startswith("step along")]["estimate"].iloc[0]
    assert_said(
        {
            "findings/quick": (
                "memorizes {:.1f} points more wrong labels than SGD [{:.1f}, {:.1f}]".format(*early),
                f"though {-100 * fitted:.0f} points fewer right ones",
                "is {:.1f} points [{:.1f}, {:.1f}] less accurate than SAM".format(*lost),
                f"after {1 + step:.0%} of the way",
            )
        }
    )
