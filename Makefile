# Every command that a user, a contributor or CI runs. `make` lists them.
#
#   PYTHON=python3.12            the Python that .venv is made from (default: python3)
#   ARGS="--epochs 3"            passed on to the example, pytest or the benchmarks
#   EXTRAS=dev,trainers          what is installed beside the package (default: dev)
#   TORCH_S3IO_NO_URING=1        build without io_uring
#   TORCH_S3IO_NO_S3=1           build without object storage
#   TORCH_S3IO_WERROR=1          compiler warnings are errors

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
ARGS ?=
EXTRAS ?= dev
JOBS ?= $(shell nproc)
CXX := $(if $(filter default,$(origin CXX)),g++,$(CXX))
export PYTHON TORCH_S3IO_NO_URING TORCH_S3IO_NO_S3 TORCH_S3IO_WERROR
unexport PYTHONDONTWRITEBYTECODE  # or every process compiles PyTorch's Python anew, for seconds
on = $(filter-out 0,$($(1)))

PY := .venv/bin/python
# Python compiles what is imported, when it is.
PIP := $(PY) -m pip install -q --disable-pip-version-check --no-compile
NO_URING := $(if $(call on,TORCH_S3IO_NO_URING),csrc/io/uring_engine.cpp)
CSRC := $(shell find csrc -name '*.cpp' -o -name '*.h')
CPP_TESTS := $(wildcard tests/cpp/*.cpp)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

## Use ---------------------------------------------------------------------------------------------

.PHONY: packages setup train bench
packages: $(patsubst %,build/stamps/packages-%,build test check clang) ## the system packages of all that CI runs

setup: build/stamps/extension build/stamps/package ## .venv with PyTorch, the extension and all tools

train: setup ## set up everything and train the example
	@$(PY) examples/train_digits.py $(ARGS)

bench: setup build/stamps/packages-bench ## against fio, malloc, and plain PyTorch data sets
	@$(PY) benchmarks/bench_engine.py $(ARGS)
	@$(PY) benchmarks/bench_pool.py $(ARGS)
	@$(PY) benchmarks/bench_writer.py $(ARGS)
	@$(PY) benchmarks/bench_dataset.py $(ARGS)
	@$(PY) benchmarks/bench_samples.py $(ARGS)
	@$(PY) benchmarks/bench_documents.py $(ARGS)
	@$(PY) benchmarks/bench_shuffle.py $(ARGS)
	@$(PY) benchmarks/bench_handoff.py $(ARGS)
	@$(PY) benchmarks/bench_order.py $(ARGS)

# What litdata and mosaicml-streaming depend on would replace the installed PyTorch, but for these.
.PHONY: peers
peers: setup ## install other loaders and compare with them (never in CI)
	@$(PIP) --no-build-isolation -e '.[dev,peers]'
	@$(PIP) --no-deps litdata \
		mosaicml-streaming
	@$(PY) -c 'import torchvision' 2>/dev/null || \
		$(PIP) --no-deps 'torchvision==0.28.*'
	@$(PIP) lightning-utilities obstore tifffile boto3 \
		requests filelock 'transformers<5' brotli python-snappy zstd 'xxhash<4' catalogue
	@$(PY) benchmarks/bench_peers.py $(ARGS)

## Test --------------------------------------------------------------------------------------------

.PHONY: test pytest trainers compat cpptest asan tsan
test: cpptest pytest ## set up everything and run the whole test suite

# Many tests wait: two more at a time than there are processors.
pytest: setup ## the Python tests alone (ARGS="-n0 -k pool": one at a time)
	@$(PY) -m pytest -n $$(($(JOBS) + 2)) --dist worksteal $(ARGS)

trainers: setup ## install Lightning, Accelerate and transformers, whose tests are skipped without them
	@$(PIP) --no-build-isolation -e '.[trainers]'

# In no CI, for it downloads about 20 GB. make compat ARGS="--keep 2.8.0"
compat: setup ## build with every PyTorch that is claimed, and test with three
	@$(PY) scripts/compat.py $(ARGS)

cpptest: build/stamps/packages-test ## the C++ tests alone (they need no PyTorch)
	@$(PYTHON) scripts/compile_cpp.py cpptest
	build/cpptest/run

asan: build/stamps/packages-test build/stamps/packages-clang ## the C++ tests under AddressSanitizer and UBSan
	@$(PYTHON) scripts/compile_cpp.py asan
	UBSAN_OPTIONS=print_stacktrace=1 build/asan/run

# ThreadSanitizer needs the classic address layout where the kernel randomizes many bits.
tsan: build/stamps/packages-test ## the C++ tests under ThreadSanitizer
	@$(PYTHON) scripts/compile_cpp.py tsan
	@no_aslr="setarch $$(uname -m) -R"; $$no_aslr true 2>/dev/null || no_aslr=; \
	echo "build/tsan/run"; TSAN_OPTIONS=halt_on_error=1 $$no_aslr build/tsan/run

## Fuzz --------------------------------------------------------------------------------------------

# Targets of fuzz/targets for FUZZ_SECONDS each, by fuzz/run.py, to which ARGS go. For more than
# CI's seconds they are optimized: they then read up to seven times as many inputs.
#   make fuzz FUZZ_SECONDS=3600                  make fuzz ARGS="npy --input build/fuzz/artifacts/npy-7"
FUZZ_SECONDS ?= 5
FUZZ_SEED ?=

.PHONY: fuzz
fuzz: setup build/stamps/packages-test build/stamps/packages-clang ## hostile inputs for all that is parsed, FUZZ_SECONDS each
	@optimized=; (($(FUZZ_SECONDS) <= 5)) || optimized=-O1; \
	CXXFLAGS="$$optimized $${CXXFLAGS:-}" $(PYTHON) scripts/compile_cpp.py fuzz
	@$(PY) fuzz/run.py --seconds $(FUZZ_SECONDS) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED)) $(ARGS)

## Check -------------------------------------------------------------------------------------------

.PHONY: check check-format check-tidy check-python check-types check-stubs check-wheels
check: check-format check-tidy check-python check-types check-stubs check-wheels ## style, types, lint, stub, wheels

check-format: build/stamps/packages-check
	@echo "== clang-format"
	@clang-format --dry-run -Werror $(CSRC) $(wildcard tests/cpp/*.* tests/cpp/*/*.* fuzz/*/*.cpp fuzz/*/*.h)

check-tidy: build/stamps/packages-check
	@echo "== clang-tidy"
	@$(PYTHON) scripts/compile_cpp.py tidy

check-python: setup
	@echo "== ruff"
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check

# One call each: examples and benchmarks both have a module common.
check-types: setup
	@echo "== mypy"
	@for folder in torch_s3io benchmarks examples; do $(PY) -m mypy --strict $$folder; done

STUBGEN = rm -rf build/stubs && $(PY) -m pybind11_stubgen torch_s3io._C --exit-code -o build/stubs

check-stubs: setup
	@echo "== torch_s3io/_C.pyi"
	@$(STUBGEN)
	@diff -u torch_s3io/_C.pyi build/stubs/torch_s3io/_C.pyi || \
		{ echo "torch_s3io/_C.pyi is not what the extension says: run make stubs"; exit 1; }

check-wheels: setup
	@echo "== wheels, with io_uring and without, built with -Werror"
	@scripts/check_wheels.sh

## Change ------------------------------------------------------------------------------------------

.PHONY: format stubs clean distclean
format: setup build/stamps/packages-check ## reformat C++ and Python
	@clang-format -i $(CSRC) $(wildcard tests/cpp/*.* tests/cpp/*/*.* fuzz/*/*.cpp fuzz/*/*.h)
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

stubs: setup ## write torch_s3io/_C.pyi anew from the extension
	@$(STUBGEN)
	@cp build/stubs/torch_s3io/_C.pyi torch_s3io/_C.pyi

clean: ## remove what was built
	@rm -rf build dist *.egg-info torch_s3io/*.so .mypy_cache .pytest_cache .ruff_cache

distclean: clean ## remove .venv as well
	@rm -rf .venv

## Set-up, by stamps: nothing is done twice --------------------------------------------------------

build/stamps/packages-%: scripts/setup.sh
	@scripts/setup.sh packages $*
	@mkdir -p $(@D) && touch $@

# These two files change only when what they hold does: the settings of the compiler, the sources.
SETTINGS = $(CXX) $(CXXFLAGS) $(LDFLAGS) $(NO_URING) $(call on,TORCH_S3IO_NO_S3) \
	$(call on,TORCH_S3IO_WERROR)
SOURCES = $(sort $(CPP_TESTS) $(CSRC))
build/stamps/settings build/stamps/sources: FORCE
	@mkdir -p $(@D)
	@content='$($(if $(filter %settings,$@),SETTINGS,SOURCES))'; \
	echo "$$content" | cmp -s - $@ || echo "$$content" > $@
FORCE:

.venv/.ready: scripts/setup.sh | build/stamps/packages-build
	@scripts/setup.sh venv

build/stamps/extension: .venv/.ready setup.py scripts/compile_cpp.py torch_s3io/_version.py $(CSRC) \
		build/stamps/settings build/stamps/sources
	@echo "== building the extension"
	@$(PY) setup.py -q build_ext --inplace
	@touch $@

build/stamps/package: .venv/.ready pyproject.toml setup.py torch_s3io/_version.py | build/stamps/extension
	@echo "== installing torch_s3io (editable) and the tools into .venv"
	@$(PIP) --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $@
