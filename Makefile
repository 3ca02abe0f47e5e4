# Each target makes the environment that it needs when there is none.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: turbo autoencoder superres gan test lint clean

turbo: $(READY)  ## distil a diffusion teacher on digits into a student of 1 to 4 steps
	$(BIN)/python examples/distill_turbo.py

autoencoder: $(READY)  ## what an adversarial loss does to an autoencoder's reconstructions of photographs
	$(BIN)/python examples/train_autoencoder.py

superres: $(READY)  ## a super-resolution network in two phases: pixels, then an adversary
	$(BIN)/python examples/train_superres.py

gan: $(READY)  ## the base case: a GAN on a ring of Gaussians
	$(BIN)/python examples/train_gan.py

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
