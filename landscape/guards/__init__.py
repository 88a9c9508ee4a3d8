"""Checks that what is measured is what the caller means: each is right, or is refused with cause and remedy."""
