"""Files -> batches: knows nothing of anchors or models."""
