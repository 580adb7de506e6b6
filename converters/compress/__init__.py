"""Fewer bits for weights: what a format means and how one is chosen."""
