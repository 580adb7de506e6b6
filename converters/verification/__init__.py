"""Proof that a package computes what its model computes, and where it does not."""
