"""Detectors: what they are trained and measured with."""
