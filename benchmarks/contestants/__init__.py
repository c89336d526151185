"""The detectors that are timed, a module each.

A module imports its library at the top, so that the memory of the imports can be told from that of
the work, and has `make(job)`: it builds the detector and returns a function without arguments that
does the timed work once, to the end, and returns its outputs as arrays:

    inference   boxes (D, 4) float32 xyxy pixels, scores (D,), labels (D,) of the one image
    train       class_loss, box_loss before the update, or whatever the library tells

All get the same uint8 pixels and boxes (job.py) and the same weights (weights.py).
"""
