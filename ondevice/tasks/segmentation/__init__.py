"""Classes of pixels: images with masks, and how well a model names each pixel."""
