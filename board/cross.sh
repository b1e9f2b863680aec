#!/bin/bash
# board/cross.sh BOARD [ARCH]: builds shutterd for a board into target/cross/<arch>/ and checks that the board can run it.
# board/cross.sh --test ARCH: the unit tests as programs of that architecture, under qemu-user, in the build root.
#
# Two ways, and which one is said:
#   rustup   where it has or can add the target's standard library, Debian's cross compiler is installed, and both together link
#   root     else: Debian's own Rust and cross compilers in the build root (board/build-root.sh), made on first use
# CROSS_WAY=rustup|root|cross takes one of them and no other; `cross` is the tool of that name, with cross.toml.
# HUB=1 builds shutter-hub as well.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "cross: $*"; }
die() { echo "cross: $*" >&2; exit 2; }
OUT=target/cross

# The boards are the folders with a configuration; the first architecture is what `make cross BOARD=` builds.
boards() { for f in board/*/shutterd.toml; do basename "$(dirname "$f")"; done | tr '\n' ' '; }
archs() {
	case $1 in
	jetson) echo arm64 ;; # JetPack has no 32-bit userland
	rpi | qemu-virt) echo arm64 armhf ;; # armhf: a 32-bit Raspberry Pi OS, on a 2 or later
	*) echo arm64 armhf amd64 ;;
	esac
}

target() {
	arch=$1
	case $arch in
	arm64) triple=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu qemu=qemu-aarch64 ;;
	armhf) triple=armv7-unknown-linux-gnueabihf gnu=arm-linux-gnueabihf qemu=qemu-arm ;;
	amd64) triple=x86_64-unknown-linux-gnu gnu=x86_64-linux-gnu qemu= ;;
	esac
	local under=${triple//-/_}
	# bindgen reads the kernel's camera headers as the target's compiler would.
	vars=("CARGO_TARGET_${under^^}_LINKER=$gnu-gcc" "CC_$under=$gnu-gcc" "CXX_$under=$gnu-g++" "AR_$under=$gnu-ar" "CFLAGS_$under=-ffunction-sections -fdata-sections"
		"BINDGEN_EXTRA_CLANG_ARGS_$under=--target=$gnu -I/usr/$gnu/include")
}

# Whether this machine's rustup can do it; says why not.
rustup_can() {
	command -v rustup >/dev/null || { say "no rustup here"; return 1; }
	[ "$(dpkg --print-architecture 2>/dev/null)" = "$arch" ] || dpkg-query -W -f='${Status}' "libc6-dev-$arch-cross" 2>/dev/null | grep -q 'ok installed' ||
		{ say "Debian's cross compiler is not installed (gcc-$gnu g++-$gnu libc6-dev-$arch-cross)"; return 1; }
	command -v "$gnu-gcc" "$gnu-g++" >/dev/null || { say "$gnu-gcc or $gnu-g++ is missing"; return 1; }
	if ! rustup target list --installed 2>/dev/null | grep -qx "$triple"; then
		say "asking rustup for $triple"
		timeout 300 rustup target add "$triple" || { say "rustup could not add $triple"; return 1; }
	fi
	# An interrupted download leaves a target that is listed and does not work.
	mkdir -p $OUT
	echo 'fn main() {}' | rustc --target "$triple" -C "linker=$gnu-gcc" -o "$OUT/probe-$arch" - || { say "rustup's $triple does not link here"; return 1; }
	rm -f "$OUT/probe-$arch"
}

choose() {
	way=${CROSS_WAY:-auto}
	case $way in
	auto)
		if rustup_can; then way=rustup; else way=root; fi
		;;
	rustup) rustup_can || die "and CROSS_WAY=rustup allows nothing else" ;;
	cross) command -v cross >/dev/null || die "CROSS_WAY=cross: the tool is not installed (cargo install cross)" ;;
	root) ;;
	*) die "CROSS_WAY is auto, rustup, root or cross, not '$way'" ;;
	esac
	case $way in
	rustup) say "$triple with $(rustc --version) and $gnu-gcc $($gnu-gcc -dumpfullversion)" ;;
	root) say "$triple with Debian's Rust in the build root" && board/build-root.sh base ;;
	cross) say "$triple with $(cross --version 2>/dev/null | head -n1) and cross.toml" ;;
	esac
}

cargo_for() {
	case $way in
	rustup) env "${vars[@]}" CARGO_TARGET_DIR=$OUT/rustup cargo "$@" ;;
	root) board/build-root.sh run env "${vars[@]}" "${more[@]}" CARGO_TARGET_DIR=$OUT/root cargo "$@" ;;
	cross) CROSS_CONFIG=$PWD/cross.toml CARGO_TARGET_DIR=$OUT/cross cross "$@" ;;
	esac
}
more=()

# Rust's library uses these two of the C library for a kind of process handle that nobody here asks for, where they are there (2.39). Linked with
# a C library that has them the program would start with no older one. Given an address here, they are asked of nobody.
older=(-C link-arg=-Wl,--defsym=pidfd_spawnp=0 -C link-arg=-Wl,--defsym=pidfd_getpid=0)

build() {
	local began=$SECONDS bins=(shutterd) arguments=(--release --locked --target "$triple")
	if [ "${HUB:-0}" != 0 ]; then
		# Apart, since the hub's features must not reach the agent.
		bins+=(shutter-hub)
	fi
	choose
	mkdir -p "$OUT/$arch"
	local features=() failed=0
	for bin in "${bins[@]}"; do
		[ "$bin" = shutterd ] || features=(--features hub)
		cargo_for rustc "${arguments[@]}" "${features[@]}" --bin "$bin" -- "${older[@]}"
		# Put beside first: a program that somebody runs from here is replaced, never rewritten.
		cp "$OUT/$way/$triple/release/$bin" "$OUT/$arch/.$bin"
		mv "$OUT/$arch/.$bin" "$OUT/$arch/$bin"
		board/check-binary.sh "$OUT/$arch/$bin" "$arch" || failed=1
	done
	[ $failed = 0 ] || { echo "cross: built, but not what a board can run (see NOT above)" >&2; exit 1; }
	say "$arch built the '$way' way in $((SECONDS - began)) s"
}

if [ "${1:-}" = --test ]; then
	target "${2:?which architecture}"
	[ -n "$qemu" ] || die "--test is for arm64 and armhf"
	way=root
	board/build-root.sh qemu
	more=("CARGO_TARGET_$(tr a-z- A-Z_ <<<"$triple")_RUNNER=$qemu -L /usr/$gnu")
	skips=()
	while read -r test why; do
		case $test in '' | '#'*) continue ;; esac
		say "skipped under qemu-user: $test: $why"
		skips+=(--skip "$test")
	done <board/cross-test.skip
	cargo_for test --locked --target "$triple" --lib -- "${skips[@]}"
	exit
fi

board=${1:-}
[ -n "$board" ] && [ -e "board/$board/shutterd.toml" ] || die "BOARD is one of: $(boards)(not '$board')"
known=$(archs "$board")
arch=${2:-${known%% *}}
[[ " $known " == *" $arch "* ]] || die "for BOARD=$board, ARCH is one of: $known (not '$arch')"
target "$arch"
say "board $board ($arch); its configuration is board/$board/shutterd.toml"
build
