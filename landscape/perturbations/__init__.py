"""The rise of the loss when the weights are perturbed: at worst, on average, and up to a given rise."""
