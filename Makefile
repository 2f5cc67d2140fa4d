# One target per task; the work itself is in scripts/. `make help` lists them.

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR

.DEFAULT_GOAL := help
.PHONY: help run test live eval vmtest vmtest-arm64 core-check bench lint fmt deps build build-static build-arm64 image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## capture this machine for 10 s with one dead DNS server, and show the finding
	@scripts/demo.sh

test: ## install what tests need, build everything, run everything
	@scripts/test.sh

live: ## only the live tests (root): real traffic in namespaces
	@scripts/test.sh live

eval: ## the fault corpus (root, 20 minutes): is the right cause named first? (SEED=n repeats a run, ONLY=name runs some)
	@scripts/eval.sh $(if $(ONLY),--only $(ONLY)) $(if $(WRITE),--write)

vmtest: ## the live tests on real kernels in QEMU, every family of variants forced (KERNELS="6.1 7.2": only these)
	@scripts/vmtest.sh $(KERNELS)

vmtest-arm64: ## some of them on arm64 kernels, 4 minutes each (KERNELS="6.12-arm64": only this)
	@scripts/vmtest-arm64.sh $(KERNELS)

core-check: ## every program relocated against the BTF of many kernels, without loading one
	@scripts/core-check.sh

bench: ## added cost per TCP connection and per UDP round trip, beside other tools (root)
	@scripts/bench.sh

lint: ## rustfmt, clippy, shellcheck, and the manifests of deploy/
	@scripts/lint.sh

fmt: ## format the Rust code
	@cargo fmt --all

deps: ## list the missing packages; install them as root on a Debian-like system (DEPS=no: only list)
	@scripts/deps.sh build run test lint

build: ## optimized ktrace and analyze
	@scripts/deps.sh build
	@cargo build --locked --release -p ktrace -p ktrace-analyzer
	@echo "built $(CARGO_TARGET_DIR)/release/ktrace and $(CARGO_TARGET_DIR)/release/analyze"

build-static: ## the same without any shared library, for containers and bare nodes
	@scripts/build-static.sh

build-arm64: ## the same for arm64, by clang and Rust's own linker: no cross compiler
	@scripts/build-arm64.sh

image: ## container image from the static binaries (docker, podman or buildah)
	@scripts/image.sh

clean: ## remove what was built
	@cargo clean
