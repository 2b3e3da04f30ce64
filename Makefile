# run and test install what they need and say so; the rest is for people who work on Comet.

.PHONY: run test bench check-delivery torture fuzz fmt lint headers clean

run: ## the daemon with its demo pages
	@scripts/packages run
	cargo build --release -p comet-daemon -p comet-ffi
	@exec $${CARGO_TARGET_DIR:-target}/release/comet serve --demo $(ARGS)

test: ## everything, with real PHP, nginx and Chromium
	@scripts/packages test
	cargo build --workspace
	cargo test --workspace

bench: ## memory, CPU and latency, beside nginx + nchan, Pushpin, PHP and bare loops
	@scripts/packages bench
	cargo build --release -p comet-daemon -p comet-bench
	$${CARGO_TARGET_DIR:-target}/release/comet-bench $(ARGS)

check-delivery: ## what a server loses, doubles and tells (docs/delivery.md); ARGS says which
	cargo build --release -p comet-daemon -p comet-torture
	$${CARGO_TARGET_DIR:-target}/release/comet-check-delivery $(or $(ARGS),comet)

fuzz: ## SECONDS=60 for each parser, or for TARGET=... alone
	@scripts/packages test
	@scripts/fuzz $(or $(SECONDS),60) $(TARGET)

torture: ## kills the daemon 5,000 times (docs/delivery.md)
	cargo build --release -p comet-daemon -p comet-ffi -p comet-torture
	$${CARGO_TARGET_DIR:-target}/release/comet-torture $(ARGS)

fmt: ## formats the code
	cargo fmt --all

lint: ## what CI refuses
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

headers: ## include/*.h from the Rust code
	cargo run --quiet -p comet-ffi --example headers

clean: ## removes what was built
	cargo clean
