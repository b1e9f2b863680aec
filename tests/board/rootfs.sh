#!/usr/bin/env bash
# Debian arm64 with systemd as a tree of files, from nothing, in about four minutes: OUT/arm64/root.
#
# The packages' own scripts run under qemu-user. The kernel learns to start arm64 programs only inside a user namespace (Linux 6.7
# or newer), so that the machine stays as it was; where it knows them already, that is used.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

PACKAGES=systemd,systemd-sysv,udev,kmod,iproute2,v4l-utils
TREE=$OUT/arm64/root
[ -e "$TREE/.complete" ] && exit
mkdir -p "$OUT/arm64"
rm -rf "$TREE"
archive=$(mirror)
echo "root filesystem: fetching from $archive"
in_root debootstrap --foreign --arch=arm64 --variant=minbase --include="$PACKAGES" trixie /mnt/arm64/root "$archive" >"$OUT/arm64/root.log"
# It can be made again: no need to flush each file to the disk.
echo force-unsafe-io >"$TREE/etc/dpkg/dpkg.cfg.d/image"
cp "$BUILD_ROOT/usr/bin/qemu-aarch64" "$TREE/usr/bin/qemu-aarch64-static"

second_stage() {
	if grep -q enabled /proc/sys/fs/binfmt_misc/qemu-aarch64 2>/dev/null; then
		chroot "$TREE" /debootstrap/debootstrap --second-stage
		return
	fi
	# The namespace waits for its id map, which only its parent can write.
	unshare --user --mount --pid --fork bash -euc '
		until grep -q 65536 /proc/self/uid_map && grep -q 65536 /proc/self/gid_map; do sleep 0.1; done
		mount -t proc proc /proc
		mount -t proc proc "$0/proc"
		mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
		# An ELF file (7f ELF, 64 bits, little endian), executable or library (02, 03), for machine b7.
		magic="\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00"
		mask="\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff"
		echo ":qemu-aarch64:M::$magic:$mask:/usr/bin/qemu-aarch64-static:" >/proc/sys/fs/binfmt_misc/register
		mount --rbind /dev "$0/dev"
		# It wants to make device nodes to see whether it may; it needs none.
		sed -i "s/^check_sane_mount () {\$/&\n\treturn 0/" "$0/debootstrap/functions"
		DEBOOTSTRAP_DIR=/debootstrap exec chroot "$0" /debootstrap/debootstrap --second-stage
	' "$TREE" &
	local pid=$!
	while [ "$(readlink "/proc/$pid/ns/user")" = "$(readlink /proc/self/ns/user)" ]; do
		kill -0 $pid
		sleep 0.1
	done
	echo "0 0 65536" >/proc/$pid/uid_map
	echo "0 0 65536" >/proc/$pid/gid_map
	wait $pid
}
# Left by the first stage as a link to the machine's own.
[ -L "$TREE/proc" ] && rm "$TREE/proc" && mkdir "$TREE/proc"
echo "root filesystem: the packages set themselves up under qemu-user"
second_stage >>"$OUT/arm64/root.log" 2>&1 || { tail -20 "$OUT/arm64/root.log" >&2; exit 1; }
rm -rf "$TREE/usr/bin/qemu-aarch64-static" "$TREE"/var/cache/apt/archives/*.deb "$TREE"/var/lib/apt/lists/*_*
touch "$TREE/.complete"
