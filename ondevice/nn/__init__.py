"""Layers that models are made of, and what turns them into fewer or smaller ones."""
