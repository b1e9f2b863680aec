#!/bin/bash
# board/check-binary.sh FILE ARCH: whether a built program is what a board can run. Each promise is a line; one that is broken fails.
#
# - it is for that architecture, and stripped;
# - it needs no C library newer than $GLIBC_MAX: 2.34 is in Raspberry Pi OS 12 (2.36), Ubuntu 22.04 and JetPack 6 (2.35), Debian 12;
# - it needs no other libraries than the C library's own, which every such system has;
# - shutterd is no larger than its limit.
set -euo pipefail
export LC_ALL=C

GLIBC_MAX=${GLIBC_MAX:-2.34}
FILE=${1:?which file} ARCH=${2:?which architecture: arm64, armhf or amd64}
# The aim is 6,000,000; what the profile in Cargo.toml reaches is there, and this holds it (with room for the camera sources).
case $ARCH in
arm64) machine=AArch64 limit=7700000 ;;
armhf) machine=ARM limit=7700000 ;;
amd64) machine="Advanced Micro Devices X86-64" limit=9000000 ;;
*) echo "$ARCH: unknown architecture (arm64, armhf, amd64)" >&2; exit 2 ;;
esac
# The hub carries a broker and is for machines with room.
[ "$(basename "$FILE")" = shutterd ] || limit=
SIZE_MAX=${SIZE_MAX:-$limit}

command -v readelf >/dev/null || { echo "readelf is missing: apt-get install binutils" >&2; exit 2; }
bad=0
fail() { echo "  NOT: $*"; bad=1; }
header=$(readelf -hW "$FILE")
is=$(sed -n 's/^ *Machine: *//p' <<<"$header")
echo "$FILE:"
if [ "$is" = "$machine" ]; then echo "  for $ARCH ($is)"; else fail "for $ARCH: it is for ${is:-nothing known}"; fi
if [ "$ARCH" = armhf ] && ! grep -q 'hard-float ABI' <<<"$header"; then fail "hard-float"; fi
sections=$(readelf -SW "$FILE")
if ! grep -qE ' \.(symtab|debug_info) ' <<<"$sections"; then echo "  stripped"; else fail "stripped: it holds symbols or debug sections"; fi
# Only what it asks of others (.gnu.version_r), newest last.
needs=$(readelf -VW "$FILE" | sed -n '/^Version needs/,$p')
newest=$(grep -oE 'GLIBC_[0-9.]+' <<<"$needs" | sed 's/GLIBC_//' | sort -uV | tail -n1 || true)
if [ -z "$newest" ]; then
	fail "linked with glibc"
elif [ "$(printf '%s\n' "$newest" "$GLIBC_MAX" | sort -V | tail -n1)" = "$GLIBC_MAX" ]; then
	echo "  glibc $newest or newer (limit $GLIBC_MAX)"
else
	fail "for glibc $GLIBC_MAX: it needs $newest, for $(readelf -W --dyn-syms "$FILE" | grep -oE "[A-Za-z0-9_]+@GLIBC_$newest\b" | cut -d@ -f1 | sort -u | tr '\n' ' ')"
fi
libraries=$(readelf -dW "$FILE" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
others=$(grep -vE '^(libc|libm|libgcc_s|libpthread|libdl|librt|ld-linux[^ ]*)\.so\.[0-9]+$' <<<"$libraries" || true)
if [ -z "$others" ]; then echo "  needs $(tr '\n' ' ' <<<"$libraries")"; else fail "free of other libraries: it needs $(tr '\n' ' ' <<<"$others")"; fi
size=$(stat -c %s "$FILE")
if [ -z "$SIZE_MAX" ] || [ "$size" -le "$SIZE_MAX" ]; then echo "  $size bytes${SIZE_MAX:+ (limit $SIZE_MAX)}"; else fail "within $SIZE_MAX bytes: it has $size"; fi
exit $bad
