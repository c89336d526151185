"""Detection metrics: arrays of detections and ground truth -> numbers."""
