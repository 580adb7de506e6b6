"""Models from and to disk and hub: folders, safetensors, files of PyTorch, labels."""
