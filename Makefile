# Two commands do all the set-up: `make run`, which needs Python alone, and `make test`, which needs
# package sources, too.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo "sudo -n")

# What the virtual environment, the C oracle, the guests of the tests and the laboratory need.
PACKAGES := python3-venv gcc libc6-dev libxen-dev libxendevicemodel1 libxenforeignmemory1 \
	libxenevtchn1 libxenstore4 libxentoolcore1 libxencall1 \
	mmdebstrap zstd e2fsprogs cpio qemu-system-x86 seabios

.PHONY: run run-xen test check bench format packages clean

run: $(VENV)/.runs
	$(BIN)/ioreqd demo

run-xen: packages $(VENV)/.installed
	$(BIN)/ioreqd demo --xen

test: packages $(VENV)/.installed
	$(BIN)/pytest -n 2 --dist loadgroup

check: packages $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m protocol.generate --check

bench: packages $(VENV)/.installed
	$(BIN)/ioreqd bench

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Without root and without sudo what is missing stays missing: the tests that need it say so.
packages:
	@missing=; for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed \
	    || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
	  echo "installing$$missing"; \
	  $(SUDO) apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get -qq install --no-install-recommends \
	    -y $$missing >/dev/null \
	  || echo "not installed:$$missing"; fi

$(BIN)/python:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory packages
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runs: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[unicorn]'
	@touch $@

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.runs

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
