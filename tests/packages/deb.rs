//! The .deb, from its installation to its purge, on a Debian with a real systemd.

use crate::dist::{deb, dist, pack_as, tarball, the_file};
use crate::machine::Machine;
use crate::scene::{self, BANNED, IN_KERNEL, banned, bans, completes, is_up, json, keeps_bans, no_table};

/// Everything of ours that is in the file system, but what the machine's own logs of packages say.
const OURS: &str =
    "find / -xdev -iname '*stockade*' -not -path '/proc/*' -not -path '/packages*' -not -path '/root/*'";

#[test]
fn a_deb_is_installed_upgraded_removed_and_purged() {
    let newer = tempfile::tempdir().unwrap();
    pack_as("9.0.0", "deb", newer.path());
    let newer = the_file(newer.path(), "stockade_9.0.0", ".deb");
    let shelf = scene::shelf(&[&deb(), &tarball(), &dist().join("SHA256SUMS"), &newer]);
    let machine = Machine::boot("deb", shelf.path());
    scene::download(&machine);
    // The page names one file; the other one comes later.
    machine.run("rm /root/packages/stockade_9.0.0*; touch /var/log/auth.log");
    let upgrade = "apt-get install --yes /packages/stockade_9.0.0*.deb";
    scene::walk(
        &machine,
        "deb",
        &[
            ("apt-get install", &|machine| {
                is_up(machine);
                completes(machine);
                machine.run("systemctl is-enabled stockade");
                bans(machine, "/var/log/auth.log");
            }),
            ("systemctl reload", &|machine| {
                machine.run("sed -i 's/^    maxretry: 15$/    maxretry: 16/' /etc/stockade/config.yaml");
                machine.run("systemctl reload stockade");
                machine.run(IN_KERNEL);
                keeps_bans(machine, upgrade);
                let version = machine.run("dpkg-query --show --showformat='${Version}' stockade");
                assert_eq!(version, "9.0.0-1");
                machine.run("grep -q 'maxretry: 16' /etc/stockade/config.yaml");
                watchdog(machine);
            }),
            ("apt-get remove", &|machine| {
                no_table(machine);
                assert!(!machine.is("systemctl is-active stockade"));
                assert!(!machine.is("test -e /usr/bin/stockade"));
                machine.run("test -e /var/lib/stockade/stockade.db && grep -q 'maxretry: 16' /etc/stockade/config.yaml");
                // Who was banned then is not when it comes back.
                machine.run(upgrade);
                is_up(machine);
                assert_eq!(banned(machine), []);
                // A ban that is left by an agent that was ended goes with the package, too.
                machine.run(&format!("stockade ban sshd {BANNED}; systemctl stop stockade; {IN_KERNEL}"));
                // What stands beside a configuration after an upgrade, and what is as secret as a token.
                machine.run("touch /etc/stockade/config.yaml.dpkg-old /etc/stockade/cloudflare.token");
            }),
            ("apt-get purge", &|machine| {
                no_table(machine);
                nothing_is_left(machine);
            }),
            ("tar --extract", &|machine| {
                is_up(machine);
                bans(machine, "/var/log/auth.log");
            }),
            ("stop --flush", &|machine| {
                no_table(machine);
                nothing_is_left(machine);
            }),
        ],
    );
}

/// Neither files nor the user.
fn nothing_is_left(machine: &Machine) {
    assert_eq!(machine.run(OURS), "");
    assert!(!machine.is("getent passwd stockade") && !machine.is("getent group stockade"));
}

/// An agent that is stuck is ended and started again by systemd; the bans do not notice.
fn watchdog(machine: &Machine) {
    assert_ne!(machine.run("systemctl show --value --property=WatchdogUSec stockade").trim(), "infinity");
    machine.run(
        "mkdir -p /run/systemd/system/stockade.service.d
        printf '[Service]\\nWatchdogSec=2s\\n' >/run/systemd/system/stockade.service.d/quick.conf
        systemctl daemon-reload; systemctl restart stockade",
    );
    machine.run("kill -STOP $(systemctl show --value --property=MainPID stockade)");
    machine.await_that(&format!(
        "{IN_KERNEL} && [ $(systemctl show --value --property=NRestarts stockade) -ge 1 ] && stockade ping"
    ));
    assert_eq!(banned(machine).len(), 2);
    machine.run(
        "rm -r /run/systemd/system/stockade.service.d; systemctl daemon-reload; systemctl restart stockade",
    );
}

#[test]
fn a_deb_below_another_root_leaves_the_hosts_firewall_alone() {
    let shelf = scene::shelf(&[&deb()]);
    let machine = Machine::boot("chroot", shelf.path());
    // A system that is made in a directory of this one, as installers and image builders do.
    machine.run(
        "mkdir -p /srv/other && cp -a /bin /etc /lib /lib64 /sbin /usr /srv/other/ && mkdir -p /srv/other/tmp /srv/other/run
        mkdir -p /srv/other/dev /srv/other/var && cp -a /dev/null /srv/other/dev/ && cp -a /var/lib /srv/other/var/ && mkdir -p /srv/other/var/log /srv/other/var/cache
        touch /var/log/auth.log; dpkg --install /packages/*.deb",
    );
    machine.run(&format!("stockade ban sshd {BANNED}; systemctl stop stockade; {IN_KERNEL}"));
    // With /proc and without.
    machine.run("cp /packages/*.deb /srv/other/tmp/; mkdir /srv/other/proc");
    for proc in ["mount --bind /proc /srv/other/proc", "umount /srv/other/proc"] {
        machine.run(&format!(
            "{proc}; chroot /srv/other sh -c 'dpkg --install /tmp/*.deb && dpkg --purge stockade'"
        ));
        machine.run(IN_KERNEL);
    }
    assert!(!machine.is("test -e /srv/other/etc/stockade"));
    machine.run("systemctl start stockade");
    assert_eq!(json(&machine, "stockade bans --json")[0]["offender"], BANNED);
}
