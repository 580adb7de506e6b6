"""Folders of images as files of embeddings, and search in them."""
