"""Annotations -> Dataset, a module a format; the others find images, judge boxes, read text."""
