//! The .rpm, with rpm's own tools on a machine with a real systemd. The machine is a Debian with rpm on it, so that what
//! other packages of a Fedora provide (a shell) is said by a package that is empty.

use std::process::Command;

use crate::dist::{dist, pack_as, rpm, run, the_file};
use crate::machine::Machine;
use crate::scene::{self, BANNED, IN_KERNEL, banned, bans, completes, is_up, keeps_bans, no_table};

/// Makes rpm believe what is true: there is a shell.
const SHELL: &str = "
    printf 'Name: shell\\nVersion: 1\\nRelease: 1\\nSummary: a shell\\nLicense: MIT\\nBuildArch: noarch\\n' >/root/shell.spec
    printf 'Provides: /bin/sh\\n%%description\\nA shell.\\n%%files\\n' >>/root/shell.spec
    rpmbuild -bb --quiet --define '_topdir /root/rpmbuild' /root/shell.spec
    rpm --install /root/rpmbuild/RPMS/noarch/shell-1-1.noarch.rpm";

#[test]
fn an_rpm_is_installed_upgraded_and_erased() {
    let newer = tempfile::tempdir().unwrap();
    pack_as("9.0.0", "rpm", newer.path());
    let newer = the_file(newer.path(), "stockade-9.0.0", ".rpm");
    let shelf = scene::shelf(&[&rpm(), &dist().join("SHA256SUMS"), &newer]);
    let machine = Machine::boot("rpm", shelf.path());
    scene::download(&machine);
    machine.run("rm /root/packages/stockade-9.0.0*; touch /var/log/secure");
    machine.run(SHELL);
    scene::walk(
        &machine,
        "rpm",
        &[
            ("rpm --install", &|machine| {
                machine.run("rpm --verify stockade");
                assert_eq!(machine.run("rpm --query --configfiles stockade"), "/etc/stockade/config.yaml\n");
                // Not started before its administrator says so, as everywhere where rpm is at home.
                assert!(!machine.is("systemctl is-active stockade"));
            }),
            ("systemctl enable", &|machine| {
                is_up(machine);
                completes(machine);
                bans(machine, "/var/log/secure");
                machine.run("sed -i 's/^    maxretry: 15$/    maxretry: 16/' /etc/stockade/config.yaml");
                machine.run("systemctl reload stockade");
                keeps_bans(machine, "rpm --upgrade /packages/stockade-9.0.0*.rpm");
                assert_eq!(machine.run("rpm --query --queryformat '%{VERSION}' stockade"), "9.0.0");
                machine.run("grep -q 'maxretry: 16' /etc/stockade/config.yaml");
            }),
            ("rpm --erase", &|machine| {
                no_table(machine);
                assert!(
                    !machine.is("systemctl is-active stockade")
                        && !machine.is("systemctl is-enabled stockade")
                );
                assert!(!machine.is("test -e /usr/bin/stockade"));
                // What was changed is kept under another name.
                machine.run("grep -q 'maxretry: 16' /etc/stockade/config.yaml.rpmsave");
                machine.run("rpm --install /packages/stockade-9.0.0*.rpm; systemctl start stockade");
                assert_eq!(banned(machine), []);
                machine.run(&format!("stockade ban sshd {BANNED}; systemctl stop stockade; {IN_KERNEL}"));
                machine.run("rpm --erase stockade");
                no_table(machine);
            }),
            ("userdel", &|machine| {
                assert!(!machine.is("test -e /var/lib/stockade -o -e /etc/stockade"));
                assert!(!machine.is("getent passwd stockade"));
            }),
        ],
    );
}

#[test]
fn an_rpm_below_another_root_leaves_the_hosts_firewall_alone() {
    let root = tempfile::tempdir().unwrap();
    // With nothing in it there is no shell for the scripts: what is looked at is the files and the database.
    let rpm = |args: &[&str]| {
        run(Command::new("rpm").arg("--root").arg(root.path()).args(["--dbpath", "/var/lib/rpm"]).args(args))
    };
    rpm(&["--install", "--nodeps", "--noscripts", crate::dist::rpm().to_str().unwrap()]);
    assert!(root.path().join("usr/bin/stockade").is_file());
    let scripts = rpm(&["--query", "--scripts", "stockade"]);
    for script in ["postinstall", "preuninstall", "postuninstall"] {
        assert!(scripts.contains(&format!("{script} scriptlet")), "{scripts}");
    }
    rpm(&["--erase", "--nodeps", "--noscripts", "stockade"]);
    assert!(!root.path().join("usr/bin/stockade").exists());
    assert!(!root.path().join("etc/stockade/config.yaml").exists(), "one that nobody changed is not kept");
}
