"""Every name that version 0.1 made public can still be imported from where it was, and shows its arguments."""

import importlib
import inspect

import pytest

import landscape

NAMES_OF_VERSION_0_1 = {
    "landscape": """
        AverageSharpness Bend Directions Evaluation LayerTraces Line Matching NoiseTolerance Objective
        Path RelativeFlatness Sharpness SharpnessProfile SpectralDensity Surface TopEigenvalues
        TraceEstimate Trajectory average_sharpness combined direction_to eigenvector_directions
        filter_normalized_directions given_direction gradient_direction layer_traces line lines load
        low_loss_bend matched normalized orthogonalized pac_bayes_sigma path paths projected_trajectory
        random_directions relative_flatness save sharpness sharpness_profile spectral_density
        spectral_measure surface surfaces top_eigenvalues trace trajectory_directions tune_allocator
    """,
    "ncsam": """
        ASAM BSAM DATASETS GSAM LOSSES METHODS METRICS MODELS NCSAM NOISE_KINDS SAM SANER Augmentation
        CheckpointError ClusterNCSAM CoTeaching Dataset EarlyLearningRegularization ForwardCorrection
        FriendlySAM GeneralizedCrossEntropy History NoisyLabels OracleSAM Plain Split
        SymmetricCrossEntropy build_loss build_method build_model corrupt_labels estimated_transition fit
        human_labels hyperparameters in_fastest_layout load_dataset loss_options mixup model_options
        noise_options predict read_human_labels
    """,
    "figures": """
        alignment contours curvature forest interactive lines paths relief sharpness_accuracy spectra
        training_curves
    """,
}


@pytest.mark.parametrize(
    ("package", "name"),
    [(package, name) for package, names in NAMES_OF_VERSION_0_1.items() for name in names.split()],
)
def test_a_public_name_is_still_importable(package, name):
    module = importlib.import_module(package)
    assert name in module.__all__
    assert hasattr(module, name)


@pytest.mark.parametrize(("one", "several"), [("line", "lines"), ("surface", "surfaces"), ("path", "paths")])
def test_a_measurement_of_one_loss_shows_every_argument_of_that_of_several(one, several):
    (_, *own), (_, *shared) = (
        inspect.signature(getattr(landscape, name)).parameters.values() for name in (one, several)
    )
    assert own == shared
