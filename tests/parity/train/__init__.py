"""Three steps of training as PyTorch takes them; ``python -m tests.parity.train FOLDER...``."""
