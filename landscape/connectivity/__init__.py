"""Paths between the weights of two models, and the permutations of units that align them."""
