"""Necks: C3..C5 -> P3..P7."""
