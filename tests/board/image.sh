#!/usr/bin/env bash
# Makes what the emulated boards boot from, in OUT; what is there and newer than these scripts stays.
#
#   OUT/arm64: vmlinuz, initrd, disk.img   Debian with systemd, no shutterd: the test installs the package
#   OUT/armhf: vmlinuz, initrd             a kernel, busybox, the C library: enough for one program
#   OUT/{arm64,armhf}/uvcsim               the USB camera
#
# Kernels and packages come from Debian as they are. Needs root, for the build root.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/lib.sh"

DISK_BYTES=3G # sparse
CAMERA_MODULES="uvcvideo vhci-hcd vivid"

fresh() {
	[ -e "$1" ] && [ -z "$(find "$HERE" -type f -newer "$1" ! -name '*.rs' ! -name uvcsim.c -print -quit)" ]
}

# initrd ARCH MODULE...: busybox, these modules, and what guest/init needs; with a C library where it is all there will be.
initrd() {
	local arch=$1 tree=$OUT/$1/initrd.tree file packages="busybox-static:$1"
	shift
	[ "$arch" = armhf ] && packages+=" libc6:$arch libgcc-s1:$arch"
	rm -rf "$tree" && mkdir -p "$tree"/{usr/bin,usr/sbin,usr/lib,modules,proc,sys,dev,root,etc,packages}
	for file in bin sbin lib; do ln -s "usr/$file" "$tree/$file"; done
	# shellcheck disable=SC2086 # a list
	in_root sh -euc 'cd "$1/packages"; shift; apt-get -o APT::Sandbox::User=root download -qq "$@"; for p in *.deb; do dpkg -x "$p" ..; done' sh \
		"/mnt/$arch/initrd.tree" $packages
	rm -rf "$tree/packages" "$tree/usr/share"
	for file in sh mount umount insmod ip sleep cat grep base64 mkdir basename dirname switch_root; do
		ln -s busybox "$tree/usr/bin/$file"
	done
	if [ "$arch" = armhf ]; then
		for file in ls tar kill ps date dmesg poweroff reboot find head tail wc mkfifo mknod rm sed awk test readlink df sync true false; do
			ln -s busybox "$tree/usr/bin/$file"
		done
	fi
	modules "$arch" "$@" | while read -r file; do
		xz -dc "$KERNEL/$file" >"$tree/modules/$(basename "$file" .xz)"
		basename "$file" .xz
	done >"$OUT/$arch/order"
	mv "$OUT/$arch/order" "$tree/modules/order"
	cp "$HERE/guest/init" "$HERE/guest/shell" "$tree/"
	chmod +x "$tree/init"
	in_root sh -euc 'cd "$1/initrd.tree" && find . | cpio -o -H newc --quiet | zstd -3 -q -f -o ../initrd' sh "/mnt/$arch"
	rm -rf "$tree"
	cp "$KERNEL/vmlinuz" "$OUT/$arch/vmlinuz"
}

# The root filesystem with the few modules it needs and the test's shell, as a disk.
disk() {
	local tree=$OUT/arm64/tree file unit
	rm -rf "$tree" && cp -a "$OUT/arm64/root" "$tree"
	rm -f "$tree/.complete"
	# shellcheck disable=SC2086
	modules arm64 virtio_net virtio_console virtio_blk ext4 $CAMERA_MODULES | (cd "$KERNEL" && xargs cp --parents -t "$tree")
	cp "$KERNEL/usr/lib/modules/$VERSION"/modules.{builtin,builtin.modinfo,order} "$tree/usr/lib/modules/$VERSION/"
	in_root depmod -b /mnt/arm64/tree "$VERSION"
	install -D -m 755 "$HERE/guest/shell" "$tree/usr/lib/board/shell"
	install -D -m 644 "$HERE/guest/board-shell.service" "$tree/etc/systemd/system/board-shell.service"
	echo board >"$tree/etc/hostname"
	echo '/dev/vda / ext4 defaults 0 1' >"$tree/etc/fstab"
	printf '[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' >"$tree/etc/systemd/network/eth0.network"
	# Set up already: the first boot is as any other.
	rm -f "$tree/etc/machine-id"
	tr -d - </proc/sys/kernel/random/uuid >"$tree/etc/machine-id"
	touch "$tree/etc/.updated" "$tree/var/.updated"
	mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
	for unit in board-shell systemd-networkd; do
		file=/etc/systemd/system/$unit.service
		[ -e "$tree$file" ] || file=/usr/lib/systemd/system/$unit.service
		ln -sf "$file" "$tree/etc/systemd/system/multi-user.target.wants/$unit.service"
	done
	# Nothing that wakes up by itself, and no login prompt where the kernel's messages go.
	for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer systemd-tmpfiles-clean.timer \
		getty-static.service serial-getty@ttyAMA0.service; do
		ln -sf /dev/null "$tree/etc/systemd/system/$unit"
	done
	rm -f "$OUT/arm64/disk.new"
	truncate -s "$DISK_BYTES" "$OUT/arm64/disk.new"
	in_root mke2fs -q -t ext4 -d /mnt/arm64/tree /mnt/arm64/disk.new
	mv "$OUT/arm64/disk.new" "$OUT/arm64/disk.img"
	rm -rf "$tree"
}

# uvcsim ARCH COMPILER
uvcsim() {
	[ "$OUT/$1/uvcsim" -nt "$HERE/uvcsim.c" ] && return
	mkdir -p "$OUT/$1"
	cp "$HERE/uvcsim.c" "$OUT/$1/"
	in_root "$2" -O2 -Wall -Wextra -static -s -D_TIME_BITS=64 -D_FILE_OFFSET_BITS=64 -o "/mnt/$1/uvcsim" "/mnt/$1/uvcsim.c"
}

mkdir -p "$OUT"
"$HERE/rootfs.sh"
kernel arm64
fresh "$OUT/arm64/initrd" || initrd arm64 virtio_blk ext4
fresh "$OUT/arm64/disk.img" || disk
kernel armhf
# shellcheck disable=SC2086
fresh "$OUT/armhf/initrd" || initrd armhf virtio_blk virtio_net virtio_console $CAMERA_MODULES
uvcsim arm64 aarch64-linux-gnu-gcc
uvcsim armhf arm-linux-gnueabihf-gcc
echo "boards are in $OUT"
