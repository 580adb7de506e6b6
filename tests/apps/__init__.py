"""The Swift package beside the Python that it repeats."""
