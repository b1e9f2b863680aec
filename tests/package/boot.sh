#!/bin/bash
# Installs a package of the agent under a real systemd, in a container made from nothing, and holds what happens against what the unit and
# the package promise: tests/package/boot.sh PACKAGE.deb. Needs root, debootstrap, systemd-container and a Debian mirror.
# A line for each promise; the first one that is broken ends it with code 1.
set -euo pipefail

deb=$(realpath "$1")
suite=${SUITE:-bookworm}
base=$(realpath -m "${BASE:-target/package-test/$suite}")
root=$base/root
leader=

if [ "$(id -u)" != 0 ]; then echo "skipped: a container needs root"; [ -z "${CI:-}" ]; exit; fi

end() {
	[ -z "$leader" ] || kill -TERM "$nspawn" 2>/dev/null || true
	[ -z "$leader" ] || wait "$nspawn" 2>/dev/null || true
}
trap end EXIT
good() { echo "ok: $*"; }
bad() {
	echo "BROKEN: $*"
	in_box journalctl -b -u shutterd -o short-precise --no-pager | tail -40 || true
	exit 1
}
in_box() { nsenter -t "$leader" -a env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"; }
prop() { in_box systemctl show shutterd -p "$1" --value; }
# until SECONDS WHAT COMMAND...: waits for the command to succeed.
until_good() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || bad "waited in vain for: $what"
		sleep 0.5
	done
	good "$what"
}

if [ ! -f "$base/system.tar" ]; then
	echo "making a Debian $suite in $base"
	mkdir -p "$base"
	debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,udev,kmod "$suite" "$root" >"$base/debootstrap.log" 2>&1
	tar -C "$root" -cf "$base/system.tar.new" . && mv "$base/system.tar.new" "$base/system.tar"
fi
rm -rf "$root" && mkdir -p "$root" && tar -C "$root" -xf "$base/system.tar"
mkdir "$root/root/deb" && cp "$deb" "$root/root/deb/first.deb"
# The same once more as a newer version.
dpkg-deb -R "$deb" "$root/root/deb/next"
sed -i 's/^Version: .*/&+next/' "$root/root/deb/next/DEBIAN/control"
dpkg-deb --root-owner-group -Zgzip -z1 -b "$root/root/deb/next" "$root/root/deb/next.deb" >/dev/null
rm -rf "$root/root/deb/next"
# Asks the kernel for the state of its clock, and to change it.
cat >"$root/usr/local/bin/clock" <<'END'
#!/usr/bin/perl
my $call = `uname -m` =~ /x86_64/ ? 305 : 266;
my $timex = pack("I", $ARGV[0] eq "set" ? 0x100 : 0) . "\0" x 508;
exit(syscall($call, 0, $timex) < 0 ? 1 : 0);
END
chmod 755 "$root/usr/local/bin/clock"
cat >"$root/root/fast.toml" <<'END'
[cameras.card]
source = "pattern:?size=640x480"
[schedules.card-1s]
camera = "card"
every = "1s"
END

# Reading the clock's state is forbidden in a container by default; what the unit itself allows is to be seen here.
systemd-nspawn --quiet --register=no --keep-unit --private-network --system-call-filter="adjtimex clock_adjtime" \
	-D "$root" -M "shutterd-$$" --boot </dev/null >"$base/boot.log" 2>&1 &
nspawn=$!
for _ in $(seq 100); do
	leader=$(pgrep -P $nspawn | head -1 || true)
	[ -n "$leader" ] && in_box systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded' && break
	kill -0 $nspawn 2>/dev/null || { echo "skipped: systemd does not boot in a container here: $(tail -1 "$base/boot.log")"; leader=; [ -z "${CI:-}" ]; exit; }
	sleep 0.3
done
good "$(in_box systemctl --version | head -1) runs as process 1"

in_box dpkg -i /root/deb/first.deb >"$base/install.log" 2>&1 || bad "the package cannot be installed: $(cat "$base/install.log")"
until_good 20 "the installed service is up without a word of configuration" in_box systemctl is-active shutterd
[ "$(in_box systemctl is-enabled shutterd)" = enabled ] || bad "it is not enabled"
in_box stat -c '%U:%G %a' /etc/shutterd /etc/shutterd/shutterd.toml /run/shutterd/shutterd.sock | xargs | grep -qx \
	'root:shutterd 2750 root:shutterd 640 shutterd:shutterd 660' || bad "owners: $(in_box stat -c '%n %U:%G %a' /etc/shutterd /etc/shutterd/shutterd.toml /run/shutterd/shutterd.sock)"
good "only root and the service read the configuration, the group has the socket"

in_box sh -c 'cat /root/fast.toml > /etc/shutterd/shutterd.toml && systemctl reload shutterd'
taken() { [ "$(in_box shutterd ls -n 1000 | grep -c card)" -ge "$1" ]; }
until_good 30 "pictures are taken, every second" taken 3
in_box shutterd snap card -o /tmp/snap.jpg >/dev/null && [ "$(in_box od -An -tx1 -N2 /tmp/snap.jpg)" = " ff d8" ] || bad "no picture on command"
good "a picture on command"
until_good 70 "systemctl status says what it does: $(prop StatusText)" sh -c "[ '$(prop StatusText)' != '' ]"

# What the unit's file says holds for the process.
pid=$(prop MainPID)
status=$(in_box cat "/proc/$pid/status")
grep -q '^NoNewPrivs:.1' <<<"$status" && grep -q '^Seccomp:.2' <<<"$status" && grep -q '^CapBnd:.0000000000000000' <<<"$status" || bad "the process is not confined: $status"
want='CapabilityBoundingSet= NoNewPrivileges=yes DevicePolicy=closed ProtectSystem=strict ProtectHome=yes ProtectProc=invisible ProtectKernelTunables=yes PrivateUsers=yes MemoryDenyWriteExecute=yes RestrictNamespaces=yes Type=notify NotifyAccess=main Restart=always StartLimitIntervalUSec=0 WatchdogUSec=1min UMask=0077 User=shutterd SupplementaryGroups=video RestartPreventExitStatus=78'
for pair in $want; do
	[ "$(prop "${pair%%=*}")" = "${pair#*=}" ] || bad "${pair%%=*} is $(prop "${pair%%=*}"), the unit says ${pair#*=}"
done
prop DeviceAllow | grep -q 'char-video4linux rw' || bad "cameras are not allowed"
good "the running unit has the properties of its file; the process has no capability, a filter, and can gain nothing"

# The same sandbox around other programs.
act() {
	in_box sh -c 'mkdir -p /run/systemd/system/probe.service.d; sed -e "s|^ExecStart=.*|ExecStart=/bin/sh -c \"$0\"|" -e "s/^Type=.*/Type=oneshot/" -e "/^Restart/d;/^ExecReload/d;/^Watchdog/d;/^RuntimeDirectory/d;/^StateDirectory/d" /usr/lib/systemd/system/shutterd.service >/run/systemd/system/probe.service; systemctl daemon-reload; systemctl start probe.service' "$1" >/dev/null 2>&1
}
act 'exit 0' || bad "nothing runs in the sandbox"
act 'exit 1' && bad "a failed act is not noticed"
act 'touch /etc/x' && bad "it may write to /etc"
act 'touch /usr/x' && bad "it may write to /usr"
act '/usr/local/bin/clock read' || bad "it cannot ask whether the clock is synchronised"
act '/usr/local/bin/clock set' && bad "it may change the clock"
act 'date -s 2001-01-01' && bad "it may set the clock"
act 'mount -t tmpfs none /mnt' && bad "it may mount"
act 'dmesg' && bad "it may read the kernel's log"
act 'cat /dev/tty1' && bad "it may read a terminal"
act 'test -r /proc/sys/kernel/random/boot_id' || bad "it cannot read the name of the boot"
good "denied: writing to /etc and /usr, setting the clock, mounting, the kernel's log, other devices"

good "allowed: asking whether the clock is synchronised"

# Watchdog: a process that stands still.
in_box sh -c "kill -STOP $pid"
until_good 100 "a stopped process is found by the watchdog" sh -c "nsenter -t $leader -a journalctl -b -u shutterd --no-pager | grep -q \"Failed with result 'watchdog'\""
until_good 30 "and started again" sh -c "[ \"\$(nsenter -t $leader -a systemctl show shutterd -p MainPID --value)\" != $pid ] && nsenter -t $leader -a systemctl is-active shutterd"
before=$(in_box shutterd ls -n 1000 | grep -c card)
until_good 30 "pictures go on" taken $((before + 2))

in_box dpkg -i /root/deb/next.deb >"$base/upgrade.log" 2>&1 || bad "no upgrade: $(cat "$base/upgrade.log")"
until_good 30 "upgraded, the service is up" in_box systemctl is-active shutterd
until_good 20 "all pictures are there, and more come" taken $((before + 4))
in_box journalctl -b -u shutterd --no-pager | grep -q 'stopping' || bad "the upgrade did not stop it in order"
in_box grep -q 'every = "1s"' /etc/shutterd/shutterd.toml || bad "the configuration was replaced"
good "the configuration that was changed by hand is kept"

# A bad file: the last accepted one runs; without one there is nothing to start again for.
in_box sh -c 'echo "nonsense = 1" >> /etc/shutterd/shutterd.toml; systemctl restart shutterd'
until_good 20 "a bad configuration after a restart: the last accepted one runs" taken $((before + 6))
in_box sh -c 'systemctl stop shutterd; mv /var/lib/shutterd/config.accepted.toml /root/; systemctl start shutterd' || true
[ "$(prop ExecMainStatus)" = 78 ] || bad "without any usable configuration it ends with $(prop ExecMainStatus), not 78"
sleep 7
[ "$(prop ActiveState)" = failed ] || bad "it is started again though its configuration cannot be used"
good "without any usable configuration: exit 78, and no start again and again"

in_box dpkg -r shutterd >/dev/null 2>&1
[ "$(in_box sh -c 'ls /var/lib/shutterd/snapshots/card | wc -l')" -ge 1 ] && [ -f "$root/etc/shutterd/shutterd.toml" ] || bad "removing it removed data"
! in_box sh -c "grep -qx shutterd /proc/[0-9]*/comm" || bad "it still runs"
good "removed: stopped; pictures and configuration stay"
in_box dpkg -P shutterd >"$base/purge.log" 2>&1 </dev/null || bad "no purge: $(cat "$base/purge.log")"
[ ! -e "$root/var/lib/shutterd" ] && [ ! -e "$root/etc/shutterd" ] || bad "purged, and something is left: $(ls -d "$root"/var/lib/shutterd "$root"/etc/shutterd 2>/dev/null)"
in_box id shutterd >/dev/null || bad "the user is gone"
good "purged without a question: data and configuration are gone, the user stays"
echo "all promises kept"
