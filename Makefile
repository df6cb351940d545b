# Every target is explained by `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
GO ?= go
PREFIX ?= /usr/local
FUZZTIME ?= 1m
ROUNDS ?= 5
CASES ?= small,mixed,precopy,users,hold,back,memory,deliver,postfix

# What the tests run against: the real programs, as Debian packages.
PEERS := dovecot-imapd dovecot-auth-lua dovecot-lmtpd dovecot-pop3d procmail maildrop mutt postfix python3 e2fsprogs xfsprogs btrfs-progs \
	tzdata bzip2 xz-utils util-linux fuse3
# What the measurements compare with, beside those.
BENCH_PEERS := mb2md tar rsync strace

.PHONY: help build demo test race check fuzz huge torture live night bench peers install clean deps bench-deps

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build mailferry and its delivery agents into bin/
	CGO_ENABLED=0 $(GO) build -o bin/ ./cmd/...

demo: build ## make up a mail server of 200 users and move them before your eyes (root)
	bin/mailferry demo

test: deps ## run all tests, the real servers included (installs them when root)
	$(GO) test -timeout 20m ./...

race: deps ## run all tests under the race detector
	$(GO) test -race -timeout 40m ./...

check: ## gofmt, go vet, staticcheck, the arrows between packages, work as the user, go.mod
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	internal/tools/arrows
	$(GO) run ./internal/tools/aswork $$($(GO) list ./... | grep -v internal/livemail) # livemail is for tests alone.
	$(GO) mod tidy -diff
	$(GO) mod verify

fuzz: ## fuzz every parser for FUZZTIME each (1m)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 2s $$pkg; \
	  done; done

huge: build ## scan and convert what does not fit into memory: lines of 1 GiB, messages of 4 GiB, mailboxes of 10 GiB
	$(GO) run ./internal/tools/huge

torture: deps ## kill and fail every call that changes files, of every verb; lose power in 15,000 states; account for every message (2 h)
	MAILFERRY_TEST_SWEEP=1 $(GO) test -timeout 120m -v -run 'AnyCall|TestTheAccounting' ./cmd/mailferry
	MAILFERRY_TEST_POWER=15000 $(GO) test -timeout 60m -v -run 'TestPowerIsLost|TestForgottenSyncs' ./cmd/mailferry

live: deps ## move users 20,000 times while mail pours in and clients are logged on (1 h)
	MAILFERRY_TEST_MOVES=20000 $(GO) test -timeout 180m -v -run 'TestUsersAreMovedLive|TestStragglers|TestTheLiveTest' ./convert

night: deps ## the tests of runs at length: 2,000 users, 60 seeds of kills, 30 s of attacks, 10 moves of 100 users under Postfix
	MAILFERRY_TEST_USERS=2000 MAILFERRY_TEST_KILLS=60 MAILFERRY_TEST_RAID=30s MAILFERRY_TEST_RUNS=10 \
	  $(GO) test -timeout 60m ./convert ./cmd/mailferry ./cmd/mailferry-deliver

bench: build bench-deps ## measure CASES beside tar, rsync, a bare loop, mb2md, doveadm, procmail, maildrop (root: loop images; 1 h)
	$(GO) run ./internal/tools/bench -mailferry bin/mailferry -agents bin -rounds $(ROUNDS) -cases $(CASES)

peers: deps ## run only the tests that compare with other programs
	$(GO) test -timeout 20m -run 'Dovecot|Corpus|Peer|Readers|GoMbox|Mktime' ./...

install: build ## install mailferry and its delivery agents below PREFIX (/usr/local)
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin bin/mailferry bin/mailferry-deliver bin/mailferry-lmtp

clean: ## remove what was built
	rm -rf bin

deps:
	@internal/tools/need $(PEERS)

bench-deps:
	@internal/tools/need $(PEERS) $(BENCH_PEERS)
