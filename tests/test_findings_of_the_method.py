"""What docs/findings.md says of NCSAM's mechanism, its settings and the transformer is in the tables."""

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
            "findings": (
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
