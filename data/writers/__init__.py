"""Dataset -> files, a module a format: what `python -m data.convert` writes."""
