PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH_CPU := https://download.pytorch.org/whl/cpu

.PHONY: setup setup-cpu demo test test-fast lint docs transcripts clean

setup: .venv/.ready

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) -e '.[dev]'
	touch $@

# For a machine without a GPU: PyTorch without about 6 GB of CUDA libraries.
setup-cpu:
	$(PYTHON) -m venv .venv
	$(PIP) 'torch>=2.6' 'torchvision>=0.21' --index-url $(TORCH_CPU)
	$(MAKE) setup

demo: setup
	$(BIN)/densecli demo

# Two processes, each with whole files and one thread of PyTorch's.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# What to run while working: without the tests that start Ray or take long.
test-fast: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not ray"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks
	$(BIN)/hadolint Dockerfile

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Runs the tutorials for real and writes what they printed. COCO is read from data/coco, a few photos of it.
transcripts: setup
	$(BIN)/python docs/transcripts.py docs/tutorials/photos.md --picture after/000001-segmentation.png
	$(BIN)/python docs/transcripts.py docs/tutorials/three-papers.md --link data/coco=data/coco
	$(BIN)/python docs/transcripts.py docs/tutorials/plugin.md

clean:
	rm -rf .venv build *.egg-info
