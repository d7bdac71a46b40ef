# One command each, on a machine with nothing but Python >= 3.11 with pip, and the package registries.
# The first call installs into .venv (CPU or GPU set, by looking at the machine); later ones start at once.
#
#   make demo ARGS="--max_steps 10"     arguments are handed on
#   make test ARGS="tests/losses -x"
#   make install PYTHON=python3.12      another interpreter than the first fitting one

SHELL := bash
.NOTPARALLEL:
.DEFAULT_GOAL := help

VENV := .venv
RUN := $(VENV)/bin/python -m
MODEL := models/SmolLM2-135M-Instruct
SET := $(shell scripts/install --which)
DEMO := configs/phishing.toml configs/overlays/cpu.toml configs/overlays/demo.toml
ROOMS := rezero_ray actors infra environments

export PYTHONUNBUFFERED := 1

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: demo
demo: $(MODEL) ## train SmolLM2-135M-Instruct on phishing-detection, for real, on this machine
	@$(RUN) rezero_ray.train $(DEMO) $(ARGS)

.PHONY: test
test: dev $(MODEL) ## every check and test but the nightly ones
	@$(RUN) pytest -m "not nightly" $(ARGS)

.PHONY: nightly
nightly: dev $(MODEL) ## every check and test
	@$(RUN) pytest $(ARGS)

.PHONY: quick
quick: dev $(MODEL) ## the checks and tests that take seconds
	@$(RUN) pytest -m "not slow" $(ARGS)

.PHONY: lint
lint: dev ## style, types and import rules
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy $(ROOMS)
	@$(VENV)/bin/lint-imports

.PHONY: format
format: dev ## put the code into the house style
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

.PHONY: install
install: $(VENV)/.installed-$(SET) ## what is needed to run

.PHONY: dev
dev: $(VENV)/.installed-$(SET)-dev oracles ## what is needed to run and to test

.PHONY: oracles
oracles: $(VENV)/config-oracles/.installed ## checkov and Rego, which config-verification asks

.PHONY: pins
pins: ## resolve pyproject.toml into requirements/
	@scripts/pin-requirements

$(VENV)/.installed-$(SET): pyproject.toml requirements/$(SET).txt scripts/install
	@scripts/install $(SET)

$(VENV)/.installed-$(SET)-dev: $(VENV)/.installed-$(SET) requirements/dev.txt
	@scripts/install $(SET) dev

$(VENV)/config-oracles/.installed: requirements/config-oracles.txt | $(VENV)/.installed-$(SET)
	@scripts/install config-oracles

$(MODEL): | $(VENV)/.installed-$(SET)
	@$(RUN) rezero_ray.models.smollm2 --output $@
