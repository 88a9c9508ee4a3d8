"""Rewrites of traced graphs. Nothing here knows a model or a data set."""
