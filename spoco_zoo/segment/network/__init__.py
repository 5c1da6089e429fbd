"""The network of a run, ready for inference: same function, less work."""
