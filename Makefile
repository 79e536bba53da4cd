# Every target makes the environment first if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install quickstart test test-slow benchmark-cifar10 benchmark-compact benchmark-distillation \
	benchmark-efficient-models benchmark-input benchmark-memory \
	benchmark-transfer benchmark-remat benchmark-serving benchmark-tpu benchmark-tpu-cost benchmark-scaling benchmark-train-step \
	benchmark-inference model-table docs lint format clean

help:  ## what there is to make
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 19

install: $(STAMP)  ## the environment alone: .venv with the tested versions

$(STAMP): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit("vit_tf needs Python 3.11 or newer, $(PYTHON) is %d.%d: make PYTHON=python3.11" % v[:2] if v < (3, 11) else 0)'
	@echo "installing TensorFlow and the rest into $(VENV) (once, a few minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,quickstart]'
	@touch $@

quickstart: $(STAMP)  ## digits -> shards -> trained, evaluated, exported, served: a few minutes
	@$(BIN)/python tools/quickstart.py

test: $(STAMP)  ## the test suite
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(STAMP)  ## what needs several processes or minutes
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

benchmark-cifar10: $(STAMP)  ## a small ViT on CIFAR-10: make benchmark-cifar10 DATA_DIR=data/cifar10
	$(BIN)/python benchmarks/cifar10.py --data_dir=$(or $(DATA_DIR),data/cifar10)

benchmark-distillation: $(STAMP)  ## a student with and without a teacher: make benchmark-distillation DATA_DIR=data/cifar10
	$(BIN)/python benchmarks/distillation.py --data_dir=$(or $(DATA_DIR),data/cifar10)

benchmark-compact: $(STAMP)  ## CCT-2/3x2 beside a ViT of its size: make benchmark-compact DATA_DIR=data/cifar10
	$(BIN)/python benchmarks/compact.py --data_dir=$(or $(DATA_DIR),data/cifar10)

benchmark-efficient-models: $(STAMP)  ## LeViT beside EfficientNets, DynamicViT beside itself unpruned
	$(BIN)/python benchmarks/efficient_models.py

model-table: $(STAMP)  ## rewrites the README's tables of models: a few minutes
	$(BIN)/python tools/model_table.py README.md

docs: $(STAMP)  ## the documentation site in site/; its pages of reference are made out of the code
	NO_MKDOCS_2_WARNING=1 TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/mkdocs build --strict

benchmark-input: $(STAMP)  ## the input's speed: make benchmark-input DATA_DIR=data/flowers5
	$(BIN)/python benchmarks/input.py --data_dir=$(or $(DATA_DIR),data/flowers5)

benchmark-transfer: $(STAMP)  ## the speed of probes and of feature extraction: make benchmark-transfer DATA_DIR=data/flowers5
	$(BIN)/python benchmarks/transfer.py --data_dir=$(or $(DATA_DIR),data/flowers5)

benchmark-memory: $(STAMP)  ## the input's memory over epochs, with a window of 50,000 records
	$(BIN)/python benchmarks/input_memory.py

benchmark-remat: $(STAMP)  ## peak memory of training under each policy of rematerialisation
	$(BIN)/python benchmarks/remat.py

benchmark-serving: $(STAMP)  ## exported models beside timm: make benchmark-serving TORCH_PYTHON=/path/to/python
	$(BIN)/python benchmarks/serving.py $(if $(TORCH_PYTHON),--torch_python=$(TORCH_PYTHON))

benchmark-tpu: $(STAMP)  ## the training step on a TPU v5e as its compiler weighs it, beside big_vision: BIG_VISION=… JAX_PYTHON=…
	$(BIN)/python benchmarks/tpu.py $(if $(BIG_VISION),--big_vision=$(BIG_VISION) --jax_python=$(JAX_PYTHON))

benchmark-tpu-cost: $(STAMP)  ## how a step's cost on a TPU grows with model, resolution and batch; no TPU needed
	$(BIN)/python benchmarks/tpu_cost.py

benchmark-scaling: $(STAMP)  ## a training step on several processes and devices of this machine
	$(BIN)/python benchmarks/scaling.py

benchmark-train-step: $(STAMP)  ## training on the CPU beside its peers: make benchmark-train-step TORCH_PYTHON=/path/to/python
	$(BIN)/python benchmarks/train_step.py $(if $(TORCH_PYTHON),--torch_python=$(TORCH_PYTHON))

benchmark-inference: $(STAMP)  ## inference on the CPU beside its peers: make benchmark-inference TORCH_PYTHON=/path/to/python
	$(BIN)/python benchmarks/inference.py $(if $(TORCH_PYTHON),--torch_python=$(TORCH_PYTHON))

lint: $(STAMP)  ## ruff: format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(STAMP)  ## lets ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## removes the environment and what the quickstart wrote; other runs stay
	rm -rf $(VENV) runs/quickstart *.egg-info
