//! The first run: an attack that is in the log already, `stockade setup`, and the agent with what it wrote.

use std::fs::OpenOptions;
use std::io::Write as _;

use crate::SOON;
use crate::world::{INNOCENT4, OFFENDER4, World, eventually, text};

#[test]
fn what_setup_writes_bans_who_attacks() {
    let mut world = World::new();
    crate::nginx::start(&mut world);
    let dir = world.dir().to_str().unwrap().to_owned();
    // The world's directory stands for the host, and is where Nginx Proxy Manager's logs usually are.
    std::fs::create_dir(world.dir().join("data")).unwrap();
    std::os::unix::fs::symlink("/", world.dir().join("data/logs")).unwrap();
    for n in 0..20 {
        assert_eq!(world.visit(OFFENDER4, &format!("/wp-login.php?{n}")), Some(404));
    }
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200));

    let out = world.stockade(&["setup", "--root", &dir, "--yes", "--observe"]);
    let told = text(&out);
    assert_eq!(out.status.code(), Some(0), "{told}");
    assert!(told.contains("npm-forceful-browsing: 20 offenses, 1 bans"), "{told}");
    assert!(told.contains(&format!("\n  {OFFENDER4} ")) && !told.contains(INNOCENT4), "{told}");
    // The check was told of the same log.
    assert!(told.contains(&format!("{dir}/proxy-host-1_access.log")), "{told}");
    assert_eq!(world.visit(OFFENDER4, "/"), Some(200), "nothing is enforced before the agent runs");

    // As written, but for where the agent keeps its own files.
    let mut config = OpenOptions::new().append(true).open(world.dir().join("config.yaml")).unwrap();
    writeln!(config, "\npaths: {{ state: {dir}/state, control: {dir}/control.sock }}").unwrap();
    world.run_agent();
    assert!(eventually(SOON, || world.visit(OFFENDER4, "/").is_none()), "{}", world.agent_log());
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200), "{}", world.table());

    // With an agent that runs, it says how to have it read a new file.
    std::fs::write(world.dir().join("proxy-host-2_access.log"), "").unwrap();
    let out = world.stockade(&["setup", "--root", &dir]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert!(text(&out).contains("proxy-host-*_access.log: 2 files"), "{}", text(&out));
}
