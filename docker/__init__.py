"""The Dockerfile's steps executed by buildah: python -m docker.check."""
