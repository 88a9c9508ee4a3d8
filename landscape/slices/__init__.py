"""Losses along lines and over planes in weight space, and the directions that span them."""
