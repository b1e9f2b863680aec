#!/bin/bash
# The build root: a Debian in a directory, with Debian's own Rust and its cross compilers for ARM boards. It builds the same
# programs on any Debian, Ubuntu or Raspberry Pi OS, whatever compilers that has, and needs nothing but a Debian mirror.
#
#   board/build-root.sh [base]     make it, or finish it, or bring it up to date with the list below   (2 min, 3.6 GB)
#   board/build-root.sh qemu       also what emulates boards: programs under qemu-user, whole boards   (1 min, 0.6 GB more)
#   board/build-root.sh run CMD…   run a command in it, in /src (this directory), as you
#   board/build-root.sh remove     delete it
#
# It stands in $BUILD_ROOT (default: target/build-root). Making it needs root (sudo is asked for); every mount is made in a mount
# namespace of its own, so that none is left behind, however this ends. Interrupted, it goes on where it can and starts over where it must.
set -euo pipefail
cd "$(dirname "$0")/.."

SUITE=trixie
ROOT=$(realpath -m "${BUILD_ROOT:-target/build-root}")
# Here is what was made and from which list; a directory without it is somebody else's and is left alone.
MARK=$ROOT/.shutterd-build-root
# In the root: the certificates that this machine trusts.
TRUST=/etc/ssl/host.crt

HOST_ARCH=$(dpkg --print-architecture 2>/dev/null) || { echo "build root: this needs Debian, Ubuntu or Raspberry Pi OS (there is no dpkg here)" >&2; exit 1; }
FOREIGN=$(for a in arm64 armhf; do [ $a = "$HOST_ARCH" ] || echo $a; done)
# The compiler, the C side (JPEG library: cmake and, on x86, nasm), and libclang for the kernel's camera headers.
BASE="ca-certificates cargo-web rustc-web gcc g++ libc6-dev make cmake libclang-dev linux-libc-dev"
[ "$HOST_ARCH" != amd64 ] || BASE+=" nasm"
for a in $FOREIGN; do
	case $a in
	arm64) BASE+=" libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross" ;;
	armhf) BASE+=" libstd-rust-web-dev:armhf gcc-arm-linux-gnueabihf g++-arm-linux-gnueabihf libc6-dev-armhf-cross" ;;
	esac
done
# ipxe-qemu: the emulated network card's ROM. The rest makes root filesystems, initial RAM disks and images.
QEMU="qemu-user qemu-system-arm ipxe-qemu e2fsprogs cpio kmod zstd xz-utils debootstrap debian-archive-keyring file"

say() { echo "build root: $*"; }
die() { echo "build root: $*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
stamp() { echo "$SUITE $HOST_ARCH $*" | sha256sum | cut -d' ' -f1; }
is() { [ "$(cat "$MARK/$1" 2>/dev/null)" = "$(stamp "$2")" ]; }

# inside USER:GROUP CMD…: in the root with /proc, /dev and this directory at /src, cargo's downloads and settings at /cargo.
inside() {
	local user=$1 cargo=${CARGO_HOME:-$HOME/.cargo}
	shift
	mkdir -p "$cargo"
	# shellcheck disable=SC2016 # expanded by the inner shell
	as_root unshare --mount --propagation private bash -c '
		set -eu
		root=$1 src=$2 cargo=$3 user=$4
		shift 4
		mkdir -p "$root/src" "$root/cargo"
		mount -t proc proc "$root/proc"
		mount --rbind /dev "$root/dev"
		mount --bind "$src" "$root/src"
		mount --bind "$cargo" "$root/cargo"
		for f in resolv.conf hosts; do [ ! -e /etc/$f ] || cat /etc/$f > "$root/etc/$f"; done
		exec chroot --userspec="$user" "$root" /bin/sh -c "cd /src && exec \"\$@\"" sh "$@"
	' inside "$ROOT" "$PWD" "$cargo" "$user" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 \
		CARGO_HOME=/cargo SSL_CERT_FILE=$TRUST CARGO_HTTP_CAINFO=$TRUST "${passed[@]}" "$@"
}

# What a build on this machine may need to reach the network, or to be reproducible.
passed=()
for v in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY SOURCE_DATE_EPOCH CI; do
	[ -z "${!v:-}" ] || passed+=("$v=${!v}")
done

# A Debian host's own mirror; elsewhere the one debootstrap comes with.
mirror() { apt-get indextargets --format '$(SITE)' 'ORIGIN: Debian' 'LABEL: Debian' 2>/dev/null | grep -E '^https?:' | sort | uniq -c | sort -rn | awk 'NR==1{print $2}'; }

bootstrap() {
	[ ! -e "$ROOT" ] || [ -d "$MARK" ] || [ -z "$(ls -A "$ROOT")" ] || die "$ROOT is there and was not made by this; choose another with BUILD_ROOT="
	if [ -d "$MARK" ]; then
		say "$ROOT was left half made or is of another release; starting over"
		remove
	fi
	make --no-print-directory setup-build-root
	local script=() mirror=() from
	# Older ones do not know the name yet; the script is the same.
	[ -e "/usr/share/debootstrap/scripts/$SUITE" ] || script=(/usr/share/debootstrap/scripts/sid)
	from=$(mirror || true)
	[ -z "$from" ] && [ ${#script[@]} = 0 ] || mirror=("$from")
	say "Debian $SUITE for $HOST_ARCH into $ROOT, from ${from:-the default mirror}"
	as_root mkdir -p "$MARK"
	# debootstrap fetches by wget, which knows nothing of apt's proxy.
	eval "$(apt-config shell apt_proxy Acquire::http::Proxy)"
	[ -z "${apt_proxy:-}" ] || passed+=("http_proxy=$apt_proxy")
	as_root env "${passed[@]}" unshare --mount --propagation private debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$ROOT" "${mirror[@]}" "${script[@]}" >"$LOG" 2>&1 ||
		{ tail -n 20 "$LOG" >&2; die "debootstrap failed; all it said is in $LOG"; }
	stamp bootstrap | as_root tee "$MARK/bootstrap" >/dev/null
}

# add NAME PACKAGES: brings them in unless the mark says that this very list is there.
add() {
	! is "$1" "$2" || return 0
	# How this machine's apt reaches its mirror, and whom its TLS trusts. Of apt's settings only these: hooks name programs of the host.
	{ echo "Acquire::https::CAInfo \"$TRUST\";"; apt-config dump Acquire | grep -vE '^Acquire::(IndexTargets|Changelogs|cdrom|Languages|GzipIndexes|CompressionTypes)' || true; } |
		as_root sh -c 'umask 077; cat > "$1/etc/apt/apt.conf.d/90host"' sh "$ROOT"
	local bundle=/etc/ssl/certs/ca-certificates.crt
	[ -e $bundle ] || bundle=$ROOT$bundle
	as_root cp "$bundle" "$ROOT$TRUST"
	say "installing $1: $2"
	# shellcheck disable=SC2016,SC2086 # expanded by the inner shell; a list of packages
	inside 0:0 env DEBIAN_FRONTEND=noninteractive FOREIGN="$(echo $FOREIGN)" bash -c '
		set -eu
		for a in $FOREIGN; do dpkg --add-architecture "$a"; done
		dpkg --configure -a
		apt-get update -q
		apt-get install -y -q --no-install-recommends "$@"
		apt-get clean
	' add $2 >"$LOG" 2>&1 || { tail -n 20 "$LOG" >&2; die "apt failed; all it said is in $LOG, and another run goes on from here"; }
	stamp "$2" | as_root tee "$MARK/$1" >/dev/null
}

remove() {
	[ -d "$MARK" ] || { [ ! -e "$ROOT" ] || die "$ROOT was not made by this and stays"; return 0; }
	! grep -qF " $ROOT/" /proc/mounts || die "something is mounted below $ROOT; unmount it first"
	as_root rm -rf --one-file-system -- "$ROOT"
}

make_it() {
	local began=$SECONDS
	if is bootstrap bootstrap && is base "$BASE" && { [ "$1" = base ] || is qemu "$QEMU"; }; then
		say "$1 is up to date in $ROOT"
		return
	fi
	mkdir -p "$(dirname "$ROOT")"
	LOG=$ROOT.log
	exec 9>"$ROOT.lock"
	flock -n 9 || { say "another run is making it; waiting"; flock 9; }
	is bootstrap bootstrap || bootstrap
	add base "$BASE"
	[ "$1" = base ] || add qemu "$QEMU"
	say "ready after $((SECONDS - began)) s: $ROOT"
}

case ${1:-base} in
base | qemu) make_it "${1:-base}" ;;
run)
	shift
	is bootstrap bootstrap && [ -e "$MARK/base" ] || die "there is none in $ROOT yet: board/build-root.sh makes it"
	inside "$(id -u):$(id -g)" "$@"
	;;
remove) remove && rm -f "$ROOT.lock" "$ROOT.log" ;;
*) die "base, qemu, run or remove, not '$1' (see the head of board/build-root.sh)" ;;
esac
