"""Backbones: normalised images -> C3, C4, C5."""
