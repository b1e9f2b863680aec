# What the image scripts share. Sourced; the caller has set -euo pipefail.
#
#   BUILD_ROOT   Debian with qemu and cross compilers, made by `board/build-root.sh qemu`
#   OUT          where everything goes; /mnt inside the build root
#
# What runs in the build root runs in a mount namespace of its own: nothing stays mounted, whatever happens.

: "${BUILD_ROOT:?}" "${OUT:?}"
[ -e "$BUILD_ROOT/usr/bin/qemu-aarch64" ] || { echo "no build root with qemu at $BUILD_ROOT: make it with board/build-root.sh qemu" >&2; exit 1; }
[ "$(id -u)" = 0 ] || exec sudo --preserve-env=BUILD_ROOT,OUT "$0" "$@"

# in_root COMMAND...: runs it in the build root, with OUT at /mnt.
in_root() {
	unshare --mount --propagation private sh -c '
		root=$1 out=$2; shift 2
		mount --bind "$out" "$root/mnt"
		mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
		mountpoint -q "$root/dev" || mount --rbind /dev "$root/dev"
		exec chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive \
			${http_proxy:+http_proxy="$http_proxy"} "$@"
	' in_root "$BUILD_ROOT" "$OUT" "$@"
}

# Debian's archive, as the build root's own apt has it.
mirror() {
	in_root apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -1
}

# kernel ARCH: Debian's own kernel of that architecture, unpacked into OUT/ARCH/kernel; sets KERNEL (folder) and VERSION.
kernel() {
	local arch=$1 flavour=$1
	[ "$arch" = armhf ] && flavour=armmp
	KERNEL=$OUT/$arch/kernel
	if [ ! -e "$KERNEL/vmlinuz" ]; then
		echo "fetching the kernel for $arch"
		rm -rf "$KERNEL" && mkdir -p "$KERNEL"
		in_root bash -eu -o pipefail -c '
			cd "/mnt/$1/kernel"
			apt-get update -qq
			package=$(apt-cache depends "linux-image-$2:$1" | grep -oE "linux-image-[0-9][^ :<>]*" | head -1)
			apt-get -o APT::Sandbox::User=root download -qq "$package:$1"
			dpkg -x ./*.deb .
			rm ./*.deb
			[ -d usr/lib/modules ] || { mkdir -p usr; mv lib usr/lib; }
			[ -e lib ] || ln -s usr/lib lib
			depmod -b . "$(ls usr/lib/modules)"
			ln -s boot/vmlinuz-* vmlinuz
		' kernel "$arch" "$flavour"
	fi
	VERSION=$(ls "$KERNEL/usr/lib/modules")
}

# modules ARCH NAME...: the files of these modules and of what they need, in the order of loading, seen from KERNEL.
modules() {
	local arch=$1 name
	shift
	for name in "$@"; do
		in_root modprobe -d "/mnt/$arch/kernel" -S "$VERSION" --show-depends "$name"
	done | sed -n "s|^insmod /mnt/$arch/kernel/\([^ ]*\).*|\1|p" | awk '!seen[$0]++'
}
