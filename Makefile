# shutterd: build, run and test. `make run` and `make test` need nothing before them: they install what is missing.
#
# | target        | does                                                          | 2 cores, clean checkout |
# |---------------|---------------------------------------------------------------|-------------------------|
# | make run      | hub and agent on loopback, a picture every 5 s, until Ctrl-C  | 5 min to build, then at once |
# | make test     | everything below up to `lint`                                 | about 38 min            |
# |   build       |   library, both programs, all tests                           | 6 min                   |
# |   test-unit   |   pure layers, store, planner: tables and properties          | 1 min                   |
# |   test-system |   cameras, brokers, disks and faults; the main job end to end | 8 min                   |
# |               |   and in short on an emulated ARM board, from our own package | 12 min to make it, 5 to run |
# |   lint        |   formatting, clippy, house rules (`tests/tidy.rs`)           | 2 min                   |
# | make soak     | simulated crashes, power cuts, refused calls: the long forms  | 1 h 20 min              |
# | make bench    | the figures, each beside a peer in the same run               | 15 min                  |
# | make board-test | an emulated ARM board, its cameras, faults and clock: BOARD=qemu-virt | about 25 min |
# | make deb      | a Debian package in target/deb: BOARD=… ARCH=…, or HUB=1        | 3 min after the build   |
# | make package-test | that package under a real systemd, in a container         | 5 min                   |
# | make check    | what a configuration file means: make check FILE=…            |                         |
# | make cross    | shutterd for a board: BOARD=… [ARCH=arm64 or armhf] [HUB=1]   | about 5 min             |
# | make cross-test | the agent's unit tests as ARM programs, under qemu-user   | about 12 min            |
# | make build-root | Debian with cross compilers; `cross` makes it where needed  | 2 min                   |

.PHONY: run test build test-unit test-system lint soak bench deb package-test check cross cross-test build-root board-image board-package board-test setup setup-test setup-build-root clean
.DEFAULT_GOAL := test
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

CARGO := cargo
DEMO := $(CURDIR)/target/demo
MQTT_PORT ?= 18830
HTTP_PORT ?= 18080
# How long the simulated crashes go on, and how many times the power is cut, in `make soak`.
SOAK_S ?= 3600
SOAK_CUTS ?= 200
# For the parts of the tests that must go red: the same programs with switches to break them.
BREAK_DIR := $(CURDIR)/target/break

# Debian packages, and what each is for.
BUILD_PACKAGES := gcc g++ make cmake libclang-dev ca-certificates
ifeq ($(shell uname -m),x86_64)
BUILD_PACKAGES += nasm
endif
TEST_PACKAGES := systemd ffmpeg mosquitto openssl strace faketime e2fsprogs dosfstools python3-gi python3-pip tzdata unzip curl iproute2 \
	gir1.2-gst-rtsp-server-1.0 gstreamer1.0-rtsp gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
	gstreamer1.0-plugins-ugly gstreamer1.0-libav nbdkit nbdkit-plugin-python libnbd-bin fuse3

BENCH_PACKAGES := mosquitto-clients binutils fswebcam

# $(call install,packages,what for): installs what is missing, says what and why.
define install
	missing=(); for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing+=($$p); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "installing $(2): $${missing[*]}"; \
		sudo=; [ $$(id -u) = 0 ] || sudo=sudo; \
		$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $${missing[@]} >/dev/null; \
	fi
endef

# The oldest compiler that builds this, from Cargo.toml.
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

setup:
	@command -v dpkg-query >/dev/null || { echo "this set-up is for Debian, Ubuntu and Raspberry Pi OS; elsewhere install: $(BUILD_PACKAGES) and rust $(MSRV)"; exit 1; }
	@$(call install,$(BUILD_PACKAGES),what the build needs (C compiler for the JPEG library and the kernel's camera headers))
	@new_enough() { command -v rustc >/dev/null && printf '%s\n' "$(MSRV)" "$$(rustc --version | cut -d' ' -f2)" | sort -CV; }; \
	if ! new_enough || ! command -v cargo >/dev/null; then \
		echo "rust $(MSRV) or newer is needed ($$(rustc --version 2>/dev/null || echo none) is here); trying Debian's rustc-web"; \
		sudo=; [ $$(id -u) = 0 ] || sudo=sudo; \
		$$sudo apt-get update -qq; \
		$$sudo apt-get install -y -qq --no-install-recommends rustc-web cargo-web >/dev/null || true; \
		hash -r; \
		new_enough || { echo "this system offers no rust $(MSRV): install it with rustup (https://rustup.rs), then run make again"; exit 1; }; \
	fi

setup-test: setup
	@$(call install,$(TEST_PACKAGES),what the tests need (RTSP camera, broker, disks that fail, tracing))

build: setup-test
	# Broken on purpose, for the controls; put aside before the real ones take their place.
	$(CARGO) build --locked --features hub,break --bins
	mkdir -p $(BREAK_DIR) && cp target/debug/shutterd target/debug/shutter-hub $(BREAK_DIR)/
	$(CARGO) build --locked --features hub --bins --tests

test-unit: build
	# With what the tests print: how many crashes, states, cuts, and what was lost in them (nothing).
	$(CARGO) test --locked --features hub --lib -- --show-output
	$(CARGO) test --locked -p shutterd-rows
	# The crash tests must fail on a redb that loses an index; a crate of its own, since cargo takes one redb 4 at a time.
	cd tests/redb_4_1 && CARGO_TARGET_DIR=$(CURDIR)/target/redb_4_1 $(CARGO) test --locked -- --nocapture redb_4_1_is_found_out

test-system: build board-image board-package
	$(BOARD_ENV) SHUTTER_BREAK_BIN_DIR=$(BREAK_DIR) $(CARGO) test --locked --features hub --test '*' -- --test-threads=2 --show-output

lint: setup-test
	@if $(CARGO) fmt --version >/dev/null 2>&1; then $(CARGO) fmt --check; else echo "skipped: rustfmt is not installed"; fi
	@if $(CARGO) clippy --version >/dev/null 2>&1; then $(CARGO) clippy --locked --features hub --all-targets -- -D warnings; else echo "skipped: clippy is not installed"; fi
	# The agent's own build: none of the hub's dependencies.
	$(CARGO) check --locked --bin shutterd

test: test-unit test-system lint
	@echo "everything passed"

# The long forms. Each prints its counts and its seed; SHUTTER_SEED repeats the dice.
soak: build
	$(CARGO) build --release --locked --bin shutterd
	SHUTTER_SOAK_S=$(SOAK_S) $(CARGO) test --locked --features hub --lib -- --nocapture a_power_cut_leaves whatever_a_cut_leaves
	SHUTTER_SOAK_SEEDS=$$(( $(SOAK_S) / 60 )) $(CARGO) test --locked --features hub --lib -- --nocapture thirty_days_of ten_years_of
	SHUTTER_SOAK_CUTS=$(SOAK_CUTS) SHUTTER_BIN=$(CURDIR)/target/release/shutterd SHUTTER_BREAK_BIN_DIR=$(BREAK_DIR) \
		$(CARGO) test --locked --features hub --test power -- --nocapture --test-threads=2

bench: setup-test
	@$(call install,$(BENCH_PACKAGES),the peers of the benches)
	$(CARGO) build --release --locked --features hub --bins
	for b in benches/*.rs; do $(CARGO) bench --locked --features hub --bench "$$(basename "$$b" .rs)"; done

# The package of a board, with its configuration and rules: make deb BOARD=rpi ARCH=arm64. The hub's: make deb HUB=1 ARCH=amd64.
# For this machine's own architecture the program is built here, for others it is taken from target/cross (`make cross`). PROGRAM=… takes
# that file instead.
HOST_ARCH := $(shell dpkg --print-architecture 2>/dev/null || echo amd64)
BOARD ?= generic
ARCH ?= $(if $(HUB),$(HOST_ARCH),arm64)
DEB_PROGRAM := $(if $(HUB),shutter-hub,shutterd)
DEB_NAME := $(if $(HUB),shutter-hub,shutterd-$(BOARD))
CARGO_DEB := $(CURDIR)/target/tools/bin/cargo-deb
CARGO_DEB_VERSION := 3.8.0
STAGE := target/deb/stage
rust_target = $(or $(patsubst %,%-unknown-linux-gnu,$(filter x86_64,$(1:amd64=x86_64))),$(if $(filter arm64,$(1)),aarch64-unknown-linux-gnu),armv7-unknown-linux-gnueabihf)
PROGRAM ?= target/$(if $(filter $(ARCH),$(HOST_ARCH)),release,cross/$(ARCH))/$(DEB_PROGRAM)

$(CARGO_DEB): | setup
	$(CARGO) install cargo-deb --locked --version $(CARGO_DEB_VERSION) --root target/tools

deb: setup $(CARGO_DEB)
	@test -n "$(HUB)" -o -f board/$(BOARD)/shutterd.toml || { echo "there is no board/$(BOARD)/shutterd.toml; boards: $$(cd board && ls -d */ | tr -d / | xargs)"; exit 1; }
	@case $(ARCH) in amd64|arm64|armhf) ;; *) echo "ARCH=$(ARCH) is none of amd64, arm64, armhf"; exit 1;; esac
	@if [ "$(origin PROGRAM)" = file ]; then \
		if [ $(ARCH) = $(HOST_ARCH) ]; then $(CARGO) build --release --locked $(if $(HUB),--features hub) --bin $(DEB_PROGRAM); \
		elif [ ! -x $(PROGRAM) ]; then $(MAKE) cross BOARD=$(BOARD) ARCH=$(ARCH) HUB=$(HUB); fi; \
	fi
	rm -rf $(STAGE) && mkdir -p $(STAGE)/rules $(STAGE)/lib
	install -m 755 $(PROGRAM) $(STAGE)/$(DEB_PROGRAM)
	# As the tests are built, so that nothing is built twice.
	$(CARGO) run --quiet --locked --features hub --example pages $(STAGE)
	systemd/deb/changelog $(DEB_PROGRAM) "$$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)" <CHANGELOG.md >$(STAGE)/changelog
	@if [ -z "$(HUB)" ]; then \
		cp board/$(BOARD)/shutterd.toml $(STAGE)/; \
		cp board/$(BOARD)/README.md $(STAGE)/ 2>/dev/null || echo "No notes on this board." >$(STAGE)/README.md; \
		find board/$(BOARD) -maxdepth 1 -type f -perm -u+x -exec cp {} $(STAGE)/lib/ ';'; \
		cp board/$(BOARD)/*.rules $(STAGE)/rules/ 2>/dev/null || cp board/generic/*.rules $(STAGE)/rules/ 2>/dev/null \
			|| echo "# This board needs no rules." >$(STAGE)/rules/60-shutterd-cameras.rules; \
	fi
	$(CARGO_DEB) --no-build --no-strip --target $(call rust_target,$(ARCH)) $(if $(HUB),--variant hub,$$([ -z "$$(ls $(STAGE)/lib)" ] || echo --variant programs)) \
		--output target/deb/$(DEB_NAME)_$$(sed -n '0,/^version = /s/^version = "\(.*\)"/\1/p' Cargo.toml)-1_$(ARCH).deb

# The package under a real systemd, in a container: installed, confined, stopped, upgraded, removed, purged. Needs root.
package-test: setup-test
	@$(call install,lintian debootstrap systemd-container xz-utils,what it takes to judge a package and to run it)
	$(MAKE) deb ARCH=$(HOST_ARCH) $(if $(filter file,$(origin PROGRAM)),,PROGRAM=$(PROGRAM))
	lintian --allow-root --fail-on error target/deb/$(DEB_NAME)_*_$(HOST_ARCH).deb
	tests/package/boot.sh target/deb/$(DEB_NAME)_*_$(HOST_ARCH).deb

check: setup
	$(CARGO) run --quiet --locked --bin shutterd -- check $(FILE)

# CAMERA=rtsp://user:password@host/path adds a real camera. The address goes into a file only you can read.
run: setup
	$(CARGO) build --locked --features hub --bins
	@umask 077; mkdir -p $(DEMO); \
	{ echo '[node]'; echo 'id = "demo"'; echo '[hub]'; echo 'url = "mqtt://127.0.0.1:$(MQTT_PORT)"'; \
	  echo '[store]'; echo 'dir = "$(DEMO)/data"'; echo 'runtime_dir = "$(DEMO)/run"'; echo '[keep]'; echo 'bytes = "500 MB"'; \
	  echo '[cameras.card]'; echo 'source = "pattern:"'; echo '[schedules.card-5s]'; echo 'camera = "card"'; echo 'every = "5s"'; \
	  if [ -n "$${CAMERA:-}" ]; then printf '[cameras.camera]\nsource = "%s"\n[schedules.camera-5s]\ncamera = "camera"\nevery = "5s"\n' "$$CAMERA"; fi; \
	} > $(DEMO)/shutterd.toml; \
	target/debug/shutterd check $(DEMO)/shutterd.toml; \
	mkfifo -m 600 $(DEMO)/ready.$$$$; \
	target/debug/shutter-hub --data $(DEMO)/hub --mqtt 127.0.0.1:$(MQTT_PORT) --http 127.0.0.1:$(HTTP_PORT) > >(tee $(DEMO)/ready.$$$$) & hub=$$!; \
	agent=; stop() { trap '' INT TERM; for p in $$agent $$hub; do kill -TERM $$p 2>/dev/null || true; wait $$p || true; done; echo "both stopped; the pictures are in $(DEMO)"; exit 0; }; \
	trap stop INT TERM; \
	exec 3< $(DEMO)/ready.$$$$; rm -f $(DEMO)/ready.$$$$; \
	up=; while read -r line <&3; do case $$line in http*) up=1; break;; esac; done; \
	[ -n "$$up" ] || { echo "the hub did not start (is port $(MQTT_PORT) or $(HTTP_PORT) taken? set MQTT_PORT, HTTP_PORT)"; wait $$hub; exit 1; }; \
	cat <&3 >/dev/null & \
	echo; echo "page: http://127.0.0.1:$(HTTP_PORT)/    (Ctrl-C stops both; each line below is a picture that is safe at the hub)"; \
	target/debug/shutterd --config $(DEMO)/shutterd.toml run & agent=$$!; \
	wait $$agent || true; stop

# For a board, into target/cross/<arch>/, checked for what the board has: processor, C library, room. board/cross.sh says which way
# it builds and why; CROSS_WAY=rustup, root or cross chooses one. BUILD_ROOT is where the build root stands.
export BUILD_ROOT CROSS_WAY HUB
cross:
	board/cross.sh "$(BOARD)" $(ARCH)

cross-test:
	board/cross.sh --test arm64
	board/cross.sh --test armhf

build-root:
	board/build-root.sh

# What the emulated boards boot from (kernel, root filesystem, USB camera), kept in target/board; and what is installed there.
BOARDS := $(CURDIR)/target/board
board-image: setup-test
	board/build-root.sh qemu
	BUILD_ROOT="$(or $(BUILD_ROOT),$(CURDIR)/target/build-root)" OUT=$(BOARDS) tests/board/image.sh

board-package: board-image
	$(MAKE) --no-print-directory cross BOARD=qemu-virt ARCH=arm64
	$(MAKE) --no-print-directory deb BOARD=qemu-virt ARCH=arm64

BOARD_ENV = SHUTTER_BOARDS=$(BOARDS) BUILD_ROOT="$(or $(BUILD_ROOT),$(CURDIR)/target/build-root)" \
	SHUTTER_BOARD_DEB="$$(ls -t target/deb/shutterd-qemu-virt_*_arm64.deb | head -n 1)" SHUTTER_BOARD_ARMHF=target/cross/armhf/shutterd

# One line for each promise; the pictures are in target/board-test.
board-test: build board-package
	@[ "$(BOARD)" = qemu-virt ] || { echo "make board-test BOARD=qemu-virt: no other board is emulated"; exit 1; }
	$(MAKE) --no-print-directory cross BOARD=qemu-virt ARCH=armhf
	$(BOARD_ENV) $(CARGO) test --locked --features hub --test board -- --include-ignored --skip in_short --nocapture --test-threads=1
	@echo "pictures of each camera: target/board-test"

setup-build-root:
	@$(call install,debootstrap debian-archive-keyring,what makes a Debian in a directory)

clean:
	# It belongs to root. One that stands elsewhere is not this directory's to delete.
	if [ -d target/build-root ]; then BUILD_ROOT= board/build-root.sh remove; fi
	$(CARGO) clean
