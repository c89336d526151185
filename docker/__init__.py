"""The Dockerfile read and executed without an engine: python -m docker.check."""
