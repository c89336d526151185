"""Random changes of a training sample: which part is seen, colours, warps, effects, mixtures."""
