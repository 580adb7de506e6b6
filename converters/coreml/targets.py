"""Deployment targets by the names users give, the oldest first."""

TARGETS = ("iOS16", "iOS17", "iOS18")
