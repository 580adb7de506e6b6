"""A model for one's own classes: images in folders, training, and what it is worth."""
