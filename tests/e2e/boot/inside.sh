#!/usr/bin/env bash
# What is tried where systemd runs the unit: each step says `ok NAME`, or what went wrong. See host.sh.
set -uo pipefail
config=/etc/stockade/config.yaml
logs=/root/logs

# step NAME COMMAND...: the command comes true within 10 seconds.
step() {
    local name=$1
    shift
    for _ in $(seq 100); do
        if "$@" >/tmp/out 2>&1; then
            echo "ok $name"
            return
        fi
        sleep 0.1
    done
    echo "FAILED $name: $*"
    cat /tmp/out
    journalctl -u stockade --no-pager -n 12
}

has() { grep -q -- "$1" <<<"$("${@:2}" 2>&1)"; }
has_not() { ! has "$@"; }
status_of() { grep -E "$1" "/proc/$(systemctl show -P MainPID stockade)/status"; }

# A line of Nginx Proxy Manager's that a client has earned, in a file that only root reads.
offend() {
    local now
    now=$(date '+%d/%b/%Y:%H:%M:%S %z')
    for n in 1 2; do
        echo "[$now] - 404 404 - GET https app.example.org \"/x$n\" [Client $1] [Length 5] [Gzip -] [Sent-to 10.0.0.2] \"curl\" \"-\""
    done >>$logs/proxy.log
}

# with EXAMPLE: the unit with this drop-in, and the configuration from standard input.
with() {
    rm -rf /etc/systemd/system/stockade.service.d
    install -D -m 644 "/root/examples/$1" "/etc/systemd/system/stockade.service.d/$1"
    { cat /root/config.yaml; cat; } >$config
    chmod 600 $config
    systemctl daemon-reload
    systemctl reset-failed stockade 2>/dev/null
    step "$1 starts" systemctl restart stockade
}

umask 077
cp $config /root/config.yaml
mkdir -p $logs
step "the unit is up" has '^active' systemctl is-active stockade
step "four capabilities" has 'CapEff:.*000000c000001004' status_of CapEff
step "none for children" has 'CapAmb:.*0000000000000000' status_of CapAmb
step "a user of its own" has_not 'Uid:.0' status_of Uid
step "system calls are filtered" has 'Seccomp:.2' status_of Seccomp
offend 203.0.113.9
step "a ban by a file of root's" has 203.0.113.9 stockade bans
step "it is in the kernel" has 203.0.113.9 nft list table inet stockade
step "header bans by BPF" has 'matcher bpf' stockade status
logger -i -t sshd 'Failed password for root from 203.0.113.10 port 22 ssh2'
step "a ban by the journal" has 203.0.113.10 stockade bans
step "reload" systemctl reload stockade
step "restart" systemctl restart stockade
step "bans are there again" has 203.0.113.9 stockade bans
systemctl kill --kill-who=main -s KILL stockade
step "killed, it comes back" has '2 jails, 2 bans' systemctl show -P StatusText stockade
step "network-pre.target comes after it" has stockade systemctl show -P After network-pre.target
step "the state is its own" has 'drwx------ .* stockade stockade' ls -ld /var/lib/stockade
step "stopped, the bans stay" systemctl stop stockade
step "they do" has 203.0.113.9 nft list table inet stockade

echo 123456789:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA >/etc/stockade/telegram.token
with credentials.conf <<'END'
sinks: { telegram: { chat_id: -1001234567890, token_file: /run/credentials/stockade.service/telegram.token } }
defaults: { sinks: [telegram] }
END
# There is no network: that, and not the secret, is the trouble.
step "the credential is read" has_not 'secret' journalctl -u stockade --no-pager --since=-5s

with legacy.conf <<'END'
backend: legacy
END
step "iptables-legacy in the unit" has 'backend legacy' stockade status
step "it has raw sockets" has 'CapEff:.*000000c000003004' status_of CapEff
stockade ban npm 203.0.113.11
step "a ban by ipset" has 203.0.113.11 ipset list
step "rules of iptables-legacy" has stockade iptables-legacy-save
step "flushed" stockade stop --flush

# As Postfix has it: a set-group-ID program, and a directory of that group.
groupadd --system maildrop
mkdir -p /var/spool/postfix/maildrop
chgrp maildrop /var/spool/postfix/maildrop
chmod 730 /var/spool/postfix/maildrop
chmod 755 /var/spool/postfix
install -m 2755 -g maildrop /bin/dd /usr/local/bin/postdrop
printf '#!/bin/sh\nexec /usr/local/bin/postdrop of=/var/spool/postfix/maildrop/mail\n' >/usr/local/bin/sendmail
chmod 755 /usr/local/bin/sendmail
with sendmail.conf <<'END'
sinks: { mail: { from: stockade@example.org, to: root@example.org, digest: 1s, sendmail: /usr/local/bin/sendmail } }
defaults: { sinks: [mail] }
END
step "mail is dropped by another group's program" has '^maildrop$' stat -c %G /var/spool/postfix/maildrop/mail
step "the agent itself has its four" has 'CapEff:.*000000c000001004' status_of CapEff
step "and its user" has_not 'Uid:.0' status_of Uid

mkdir -p /etc/nginx/stockade
chmod 755 /etc/nginx/stockade
cat >/etc/nginx/conf.d/stockade.conf <<'END'
geo $arg_who $banned { default 0; include /etc/nginx/stockade/banned.conf; }
server { listen 80; location / { if ($banned) { return 403; } return 204; } }
END
touch /etc/nginx/stockade/banned.conf
chmod 644 /etc/nginx/stockade/banned.conf /etc/nginx/conf.d/stockade.conf
ip link set lo up
step "nginx serves" systemctl restart nginx
visit() { curl --silent --output /dev/null --write-out '%{http_code}' --max-time 2 'http://127.0.0.1/?who=198.51.100.7'; }
step "nginx lets through" has 204 visit
with web-server.conf <<'END'
sinks:
  map:
    format: nginx-geo
    path: /etc/nginx/stockade/banned.conf
    interval: 1s
    test: [/usr/sbin/nginx, -t]
    reload: [/usr/sbin/nginx, -s, reload]
defaults: { sinks: [map], observe: false }
ignoreip: []
END
step "the agent itself has its four as root" has 'CapEff:.*000000c000001004' status_of CapEff
stockade ban npm 198.51.100.7
step "the map is written, tested and read" has 198.51.100.7 cat /etc/nginx/stockade/banned.conf
step "nginx was told" has 403 visit
