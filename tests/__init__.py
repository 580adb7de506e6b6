"""Tests, folder by folder as the code; ``support`` has what they share."""

from pathlib import Path

ROOT = Path(__file__).parents[1]  # of the project
