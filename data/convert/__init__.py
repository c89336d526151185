"""A dataset of one format -> another: what `python -m data.convert` does, see `__main__`."""
