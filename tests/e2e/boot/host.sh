#!/usr/bin/env bash
# Boots this machine's own files, under an overlay in memory, with systemd as process 1, and the unit in them; runs inside.sh
# there. Nothing of the machine is changed: mounts, processes and network are in namespaces that end with it.
#
#   host.sh DIR PROGRAM UNITS     what is written lies in DIR; inside.sh's words end up in DIR/told
set -euo pipefail
dir=$1 program=$2 units=$3
here=$(dirname "$(readlink -f "$0")")
if [ "${4:-}" != apart ]; then
    exec unshare --mount --cgroup --propagation private bash "$0" "$1" "$2" "$3" apart
fi

# systemd wants control groups of the second kind, whatever this machine has.
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p "$dir/memory"
mount -t tmpfs tmpfs "$dir/memory"
mkdir "$dir"/memory/{upper,work,root}
root=$dir/memory/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/memory/upper,workdir=$dir/memory/work" "$root"

# None of this machine's services, but for the base of the system.
find "$root/etc/systemd/system" -mindepth 1 -delete
rm -rf "$root/etc/stockade" "$root/var/lib/stockade" "$root"/etc/nginx/{sites-enabled,conf.d}/*
systemd-id128 new >"$root/etc/machine-id"
install -m 755 "$program" "$root/usr/bin/stockade"
install -D -m 644 "$units/stockade.service" "$root/usr/lib/systemd/system/stockade.service"
install -D -m 644 "$units/stockade.sysusers" "$root/usr/lib/sysusers.d/stockade.conf"
install -D -m 644 "$units/stockade.tmpfiles" "$root/usr/lib/tmpfiles.d/stockade.conf"
cp -r "$units/examples" "$root/root/examples"
install -m 755 "$here/inside.sh" "$root/root/inside.sh"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s /usr/lib/systemd/system/stockade.service "$root/etc/systemd/system/multi-user.target.wants/"
cat >"$root/etc/systemd/system/inside.service" <<'END'
[Unit]
After=stockade.service
[Service]
Type=oneshot
ExecStart=-/root/inside.sh
ExecStopPost=/usr/bin/systemctl --no-block exit
StandardOutput=file:/root/told
StandardError=inherit
END
ln -s ../inside.service "$root/etc/systemd/system/multi-user.target.wants/"
mkdir -p "$root/etc/stockade"
cat >"$root/etc/stockade/config.yaml" <<'END'
jails:
  npm: { filter: npm-404, logpath: /root/logs/*.log, from: start, maxretry: 2, findtime: 1h, bantime: 1h }
  sshd: { filter: sshd, journal: _UID=0 SYSLOG_IDENTIFIER=sshd, from: start, maxretry: 1, findtime: 1h, bantime: 1h }
END
chmod 600 "$root/etc/stockade/config.yaml"

timeout 120 systemd-nspawn --quiet --directory="$root" --register=no --keep-unit --private-network \
    --capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON,CAP_SYS_ADMIN,CAP_NET_RAW --system-call-filter="bpf add_key keyctl" \
    --boot systemd.unit=multi-user.target </dev/null >"$dir/console" 2>&1 || echo "systemd-nspawn: $?" >>"$dir/console"
cp "$root/root/told" "$dir/told"
