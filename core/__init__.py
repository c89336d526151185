"""The detector: knows tensors, knows nothing of files."""
