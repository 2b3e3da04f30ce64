# `make` without a target lists all targets. run, test and bench install the Debian packages that they need, and print their names.

PROFILE ?= release# or debug, which builds faster
PREFIX = /usr/local
BINDIR = $(PREFIX)/bin
LIBDIR = $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
SHAREDIR = $(PREFIX)/share/comet
DOCDIR = $(PREFIX)/share/doc/comet
# systemd, sysusers and tmpfiles read /usr/local/lib and /usr/lib; for another PREFIX set this to one of them.
SYSTEMDDIR = $(PREFIX)/lib
SYSCONFDIR = /etc
# The program that knows the directory of PHP's extensions.
PHP_CONFIG = php-config

built = $(or $(CARGO_TARGET_DIR),target)/$(PROFILE)
cargo_build = cargo build --profile $(PROFILE:debug=dev)
installed = PREFIX='$(PREFIX)' BINDIR='$(BINDIR)' LIBDIR='$(LIBDIR)' INCLUDEDIR='$(INCLUDEDIR)' SHAREDIR='$(SHAREDIR)' \
	DOCDIR='$(DOCDIR)' SYSTEMDDIR='$(SYSTEMDDIR)' SYSCONFDIR='$(SYSCONFDIR)' DESTDIR='$(DESTDIR)' \
	PHP_CONFIG='$(PHP_CONFIG)' BUILT='$(built)'

.PHONY: help run build install uninstall php-extension install-php-extension test bench check-delivery torture fuzz \
	fmt lint headers clean

help: ## prints this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 23

run: ## starts the daemon with its demo pages at http://127.0.0.1:2061/
	@scripts/packages run
	$(cargo_build) -p comet-daemon -p comet-ffi
	@exec $(built)/comet serve --demo $(ARGS)

build: ## builds the daemon and libcomet, for make install
	@scripts/packages run
	$(cargo_build) -p comet-daemon -p comet-ffi

install: ## as root: installs what make build has built; PREFIX=/usr/local, DESTDIR=
	@$(installed) scripts/install install

uninstall: ## as root: removes what make install has installed; settings and messages stay
	@$(installed) scripts/install uninstall

php-extension: ## builds the PHP extension, after make build; needs php-dev
	@php-ext-example/build $(PROFILE)

install-php-extension: ## as root: installs and enables the PHP extension
	@$(installed) scripts/install install-php-extension

test: ## runs all tests, with real PHP, nginx and Chromium; installs clients from npm and PyPI
	@scripts/packages test
	@scripts/clients
	cargo build --workspace
	cargo test --workspace

bench: ## measures memory, CPU and latency beside nginx + nchan, Pushpin, PHP; ARGS=--quick
	@scripts/packages bench
	cargo build --release -p comet-daemon -p comet-bench
	$${CARGO_TARGET_DIR:-target}/release/comet-bench $(ARGS)

check-delivery: ## counts messages that a server loses or repeats (docs/delivery.md); ARGS names the server
	cargo build --release -p comet-daemon -p comet-torture
	$${CARGO_TARGET_DIR:-target}/release/comet-check-delivery $(or $(ARGS),comet)

fuzz: ## fuzzes every parser for SECONDS=60, or only TARGET=...
	@scripts/packages test
	@scripts/fuzz $(or $(SECONDS),60) $(TARGET)

torture: ## kills the daemon 5,000 times (docs/delivery.md)
	cargo build --release -p comet-daemon -p comet-ffi -p comet-torture
	$${CARGO_TARGET_DIR:-target}/release/comet-torture $(ARGS)

fmt: ## formats the code
	cargo fmt --all

lint: ## checks format and lints, as CI does
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

headers: ## writes include/*.h from the Rust code
	cargo run --quiet -p comet-ffi --example headers

clean: ## removes all build results
	cargo clean
