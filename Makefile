# What a developer does: build and run waft, test it, measure it.

# Tests wait for programs more than they compute.
export RUST_TEST_THREADS ?= 8

# Parts of the conformance run, such as SECTIONS=1,2; all when empty.
SECTIONS ?=

.PHONY: run build test tools lint check-judge conformance bench fuzz

run:
	cargo run --package waft -- $(ARGS)

build:
	cargo build --release --package waft

test: tools lint
	cargo test --workspace --locked

tools:
	scripts/install-test-tools

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# Runs the tests of behaviour against the genuine Pushpin, which must be installed: what fails there is a wrong test.
check-judge:
	WAFT_TEST_SERVER=pushpin scripts/install-test-tools
	WAFT_TEST_SERVER=pushpin cargo test --package waft-tests --locked --no-fail-fast

# Runs Autobahn|Testsuite against waft both ways, which takes about half an hour, and writes docs/conformance.md.
conformance: build tools
	target/test-tools/python/bin/python tests/conformance/run.py --sections "$(SECTIONS)"

bench:
	bench/run

fuzz:
	fuzz/run
