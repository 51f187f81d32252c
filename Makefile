# What SQLite must have: a source database may use any of it.
TAGS := sqlite_fts5 sqlite_math_functions sqlite_stat4
GO ?= go

FUZZTIME ?= 30s
BENCHTIME ?= 1s
# Of the system benchmark: small or full.
SCALE ?= small
# Of the soak tests: how long, and which history; a failure prints its seed. And how
# often the SQLite WAL starts over under each kind of hostile program.
SECONDS ?= 60
SEED ?= 1
GENERATIONS ?= 1000

.PHONY: build test check fuzz bench bench-system soak demo tidy-check clean

build:
	$(GO) build -trimpath -tags "$(TAGS)" -o bin/replicator ./cmd/replicator

demo: build
	./bin/replicator demo

test:
	$(GO) test -timeout=15m -tags "$(TAGS)" ./...

# With -race the long system tests run in their short form; make test runs them whole.
check: tidy-check
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not formatted: $$unformatted"; exit 1; }
	$(GO) vet -tags "$(TAGS)" ./...
	$(GO) tool staticcheck -tags "$(TAGS)" ./...
	$(GO) test -race -shuffle=on -short -timeout=15m -tags "$(TAGS)" ./...

# go test takes one fuzz target at a time.
fuzz:
	@set -e; for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | sed 's/^func //'); do \
			echo "== $$dir $$target"; \
			$(GO) test -tags "$(TAGS)" -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) $$dir; \
		done; \
	done

bench:
	$(GO) test -tags "$(TAGS)" -run='^$$' -bench=. -benchtime=$(BENCHTIME) ./...

# Real processes and real files, against SQLite alone: see BENCHMARKS.md.
bench-system: build
	./bin/replicator bench --scale $(SCALE) --json bin/bench.json

soak:
	$(GO) test -tags "$(TAGS)" -run='^TestNothingLostToHostilePrograms$$' -count=1 -v -timeout=0 ./primary -generations $(GENERATIONS)
	$(GO) test -tags "$(TAGS)" -run='^TestSoak$$' -count=1 -v -timeout=0 . -soak.seconds $(SECONDS) -soak.seed $(SEED)

# go.mod and go.sum say what the code imports, no more and no less.
tidy-check:
	$(GO) mod tidy -diff

clean:
	rm -rf bin
