"""The landscape along a training, measured while the training runs."""
