# Two commands do everything on a fresh machine: `make run` and `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null || ls $${CARGO_HOME:-$$HOME/.cargo}/bin/cargo-nextest 2>/dev/null)

.PHONY: help
help: ## Shows this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

.PHONY: setup
setup: ## Installs what is missing: PostgreSQL, Node.js packages of the tests, nextest
	@scripts/setup

.PHONY: web
web: ## Builds the web application, where its source changed
	@scripts/setup web
	@scripts/web

.PHONY: run
run: ## Builds, makes sample data once, and serves with the embedded store
	@echo "1/4 Installing what is missing"
	@scripts/setup run
	@echo "2/4 Building the web application: about 1 minute the first time"
	@scripts/web
	@echo "3/4 Building the server: minutes the first time (about 6 on two cores), seconds afterwards"
	cargo build --profile trial
	@echo "4/4 Creating sample data and starting"
	@scripts/run

.PHONY: test
test: ## Installs what is missing and runs every test and lint
	@scripts/setup test
	@scripts/web
	cd web && npm run --silent lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --quiet -- -D warnings
	cargo check --quiet
	scripts/test-postgres stop
	HOOKLEDGER_TEST_POSTGRES=$$(scripts/test-postgres start) cargo nextest run --workspace --all-features; \
	    result=$$?; scripts/test-postgres stop; exit $$result

.PHONY: test-slow
test-slow: ## Runs every test on one core beside a process that burns both (TIMES=3)
	@scripts/setup test
	@scripts/web
	scripts/test-slow $(or $(TIMES),1)

.PHONY: bench
bench: ## Measures durable webhooks/s against a stock cqrs-es server, in one run
	@scripts/setup run
	cargo build --release --workspace
	target/release/hookledger-bench --deliver 4300 --list 1000000

.PHONY: torture
torture: ## Injects every kind of fault into real nodes and databases; ARGS="--kind reset --seeds 10" for some
	@scripts/setup torture
	cargo build --release --workspace
	target/release/hookledger-torture $(or $(ARGS),--kind each)

.PHONY: schema
schema: ## Writes schema.graphql from the code
	cargo run --quiet -- schema > schema.graphql.new && mv schema.graphql.new schema.graphql

.PHONY: reference
reference: ## Writes the reference of commands and settings from the binary's help
	cargo build --quiet
	scripts/reference > docs/reference/command-line.new && mv docs/reference/command-line.new docs/reference/command-line.md

.PHONY: docs
docs: ## Builds the book into target/book; installs mdbook where it is missing
	@scripts/book

.PHONY: deny
deny: ## Checks licences, advisories and layering (needs cargo-deny)
	cargo deny --workspace check bans licenses sources
	@if git ls-remote -q https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; \
	    then cargo deny --workspace check advisories; \
	    else echo "advisories were NOT checked: their database at github.com/RustSec/advisory-db cannot be reached" >&2; fi
