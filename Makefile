# `make train` and `make test` do everything on a fresh machine that has Python 3.11-3.13 with venv.

# The newest Python that TensorFlow has wheels for; `make PYTHON=/path/to/python3.12` chooses another.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: train quick test slow docker-check parity bench ablation fuzz lint images clean

train: .venv/.installed
	$(BIN)/python train.py

# The tests come in three tiers; each test module says which one it is of. quick: while working, to
# stay within 90 seconds on 2 cores; test: all but the slow ones, before a commit, to stay within 8
# minutes; slow: kills, soaks, processes, big files, whole trainings.
TESTS := $(BIN)/python -m pytest -n 2 --dist loadfile

quick: .venv/.installed-dev
	$(TESTS) -m "quick and not slow"

test: .venv/.installed-dev
	$(TESTS) -m "not slow"

slow: .venv/.installed-dev
	$(TESTS) -m slow

# Against torchvision and the like, in an environment of its own: torch takes 5 GB. Here a test
# that is skipped has failed.
parity: .venv-parity/.installed
	REQUIRE_PARITY=1 .venv-parity/bin/python -m pytest tests/parity -n 2 --dist loadfile

# The Dockerfile's steps by buildah on a Debian by debootstrap, then a training; needs root.
docker-check: .venv/.installed
	$(BIN)/python -m docker.check $(CHECK)

# On an otherwise idle machine; `make bench BENCH=--busy` measures all the same. The default of
# models is the headline, `make bench MODELS=--all` every depth, size and number of classes (hours).
bench: .venv-parity/.installed
	.venv-parity/bin/python -m benchmarks.models $(MODELS) $(BENCH)
	.venv-parity/bin/python -m benchmarks.input $(BENCH)
	.venv-parity/bin/python -m benchmarks.startup $(BENCH)
	.venv-parity/bin/python -m benchmarks.growth $(BENCH)
	.venv-parity/bin/python -m benchmarks.annotations $(BENCH)
	.venv-parity/bin/python -m benchmarks.tfrecord $(BENCH)
	.venv-parity/bin/python -m benchmarks.metrics $(BENCH)

# What each choice is worth in mAP on BCCD, a table: hours. Stopped, it goes on where it was.
BCCD ?= datasets/bccd
ablation: .venv/.installed
	$(BIN)/python -m benchmarks.ablation --root $(BCCD)

# Readers fed with 10,000 mutated files of each format.
fuzz: .venv/.installed-dev
	FUZZ_EXAMPLES=10000 $(BIN)/python -m pytest tests/data/test_fuzz.py -n 2

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Makes every picture of README and docs/; 3 minutes of training for one, if runs/shapes is not there.
images: .venv/.installed
	$(BIN)/python -m images.make

.venv/.installed: requirements.txt
	@test -n "$(PYTHON)" || { echo "error: expected Python 3.11, 3.12 or 3.13 with venv on the" \
		"PATH, found none; install one, or say make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/.installed-dev: requirements-dev.txt requirements-export.txt .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.venv-parity/.installed: requirements-parity.txt requirements-tfds.txt requirements.txt
	test -x .venv-parity/bin/python || $(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

clean:
	rm -rf .venv .venv-parity runs datasets
