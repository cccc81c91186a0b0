# The commands that CI and the README call. `make test` is everything that a change must pass.

SHELL := bash
.NOTPARALLEL:
.PHONY: test lint e2e bench fuzz assets clean-cache steps toolchain format clippy features deny graph cross tests doc

# Tools and servers are built once per version and kept here.
export YURT_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/yurt
export PATH := $(YURT_CACHE)/tools/bin:$(PATH)

target := $(or $(CARGO_TARGET_DIR),target)
export TEST_LOG := $(target)/tests.log
export DOC_LOG := $(target)/doc.log

step := @.ci/step

test: export STEPS_LOG := $(target)/steps.log
test:
	@mkdir -p $(target) && rm -f $(STEPS_LOG) $(TEST_LOG) $(DOC_LOG)
	@$(MAKE) --no-print-directory steps; status=$$?; .ci/summary; exit $$status

lint: toolchain format clippy deny graph

e2e: toolchain assets
	cargo nextest run --locked --workspace --run-ignored only

bench:
	cargo bench --locked --package benches

# By hand, after a change of what reads a peer's bytes; `make test` replays the corpus. FUZZ_SECONDS for each target.
FUZZ_SECONDS ?= 60
fuzz:
	@.ci/toolchain cargo-fuzz@0.13.2
	@.ci/fuzz $(FUZZ_SECONDS)

assets:
	@examples/testbed/servers/build.sh
	@.ci/node || true # says what is missing; only the tests of a real node need it

clean-cache:
	rm -rf "$(YURT_CACHE)"

# What `make test` is made of, the quickest answers first.
steps: toolchain format graph deny clippy features cross tests doc

toolchain:
	@mkdir -p "$(YURT_CACHE)"
	$(step) $@ .ci/toolchain cargo-nextest@0.9.151 cargo-deny@0.20.2

format:
	$(step) $@ cargo fmt --all --check

graph:
	$(step) $@ .ci/graph

# The advisory database cannot be fetched everywhere: deny.toml holds the version floors instead.
deny:
	$(step) $@ cargo deny --offline check bans licenses sources

clippy:
	$(step) $@ cargo clippy --locked --workspace --all-targets -- -D warnings

# Features leave out a dependency; each has to compile without the others.
features:
	$(step) $@ .ci/features

cross:
	$(step) $@ .ci/cross

tests:
	$(step) $@ .ci/tests

doc:
	$(step) $@ .ci/doc
