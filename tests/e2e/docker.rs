//! Logs of containers, as dockerd lays them out: `containers/ID/config.v2.json`, `hostconfig.json` and `ID-json.log`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use crate::SOON;
use crate::journal::{Journal, status};
use crate::world::{INNOCENT4, OFFENDER4, World, eventually, text};

/// A container's directory.
struct Container {
    id: String,
    own: PathBuf,
}

impl Container {
    /// As dockerd makes one: the directory, its files, then the log.
    fn make(world: &World, digit: char, name: &str, driver: &str, label: &str) -> Self {
        let id: String = std::iter::repeat_n(digit, 64).collect();
        let own = world.dir().join("docker/containers").join(&id);
        fs::create_dir_all(&own).unwrap();
        let config = format!(
            r#"{{"StreamConfig":{{}},"State":{{"Running":true,"Paused":false,"Restarting":false,"OOMKilled":false,"RemovalInProgress":false,"Dead":false,"Pid":4711,"ExitCode":0,"Error":"","StartedAt":"2026-11-21T07:00:00.1Z","FinishedAt":"0001-01-01T00:00:00Z","Health":null}},"ID":"{id}","Created":"2026-11-21T07:00:00Z","Managed":false,"Path":"/init","Args":[],"Config":{{"Hostname":"{host}","User":"","AttachStdout":false,"Tty":false,"Env":["PATH=/bin"],"Image":"jc21/nginx-proxy-manager","Labels":{{"com.docker.compose.service":"{label}"}}}},"Image":"sha256:00","NetworkSettings":{{}},"LogPath":"/var/lib/docker/containers/{id}/{id}-json.log","Name":"/{name}","Driver":"overlay2","OS":"linux","RestartCount":0}}"#,
            host = &id[..12]
        );
        let host = format!(
            r#"{{"Binds":null,"LogConfig":{{"Type":"{driver}","Config":{{"max-size":"10m"}}}},"NetworkMode":"bridge"}}"#
        );
        for (file, text) in [("hostconfig.json", host), ("config.v2.json", config)] {
            let temporary = own.join(format!(".tmp-{file}"));
            fs::write(&temporary, text).unwrap();
            fs::rename(temporary, own.join(file)).unwrap();
        }
        Self { id, own }
    }

    fn log(&self) -> PathBuf {
        self.own.join(format!("{}-json.log", self.id))
    }

    /// One record, as dockerd writes it.
    fn record(&self, log: &str) {
        let log = serde_json::to_string(log).unwrap();
        let record =
            format!("{{\"log\":{log},\"stream\":\"stdout\",\"time\":\"{}\"}}\n", jiff::Timestamp::now());
        let mut file = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        file.write_all(record.as_bytes()).unwrap();
    }
}

/// A line of Nginx Proxy Manager's of a page that is not there.
pub(crate) fn line(client: &str) -> String {
    let now = jiff::Zoned::now().strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
    format!(
        "[{now}] - 404 404 - GET https app.example.org \"/wp-login.php\" [Client {client}] [Length 5] [Gzip -] [Sent-to 10.0.0.2] \"curl\" \"-\""
    )
}

const JAIL: &str = "
docker: { root: DIR/docker }
jails:
  npm: { filter: npm-404, docker: npm, maxretry: 4, findtime: 1h, bantime: 1h }
";

#[test]
fn a_containers_log_is_followed_through_rotation_and_recreation() {
    let mut world = World::new();
    crate::nginx::start(&mut world);
    let other = Container::make(&world, 'e', "other", "json-file", "x");
    let first = Container::make(&world, 'a', "npm", "json-file", "npm");
    first.record(&(line(OFFENDER4) + "\n"));
    world.start_agent(JAIL);

    // What is not the container's, and what a client wrote into a line.
    for _ in 0..9 {
        other.record(&(line(INNOCENT4) + "\n"));
        first.record(&format!("x\n{}\n", line(INNOCENT4)));
        first.record(&format!("x {{\"log\":\"{}\\n\"}}\n", line(INNOCENT4)));
    }
    // dockerd cuts lines after 16 KiB: neither piece is a line, however a client aims.
    for _ in 0..5 {
        first.record(&"x".repeat(16 * 1024));
        first.record(&(line(INNOCENT4) + "\n"));
    }
    // A piece that is longer than a line may be, as written in JSON, is skipped; what follows is its end.
    for _ in 0..5 {
        first.record(&"\u{1}".repeat(16 * 1024));
        first.record(&(line(INNOCENT4) + "\n"));
    }
    let (begin, end) = (line(OFFENDER4), "\n");
    first.record(&begin[..40]);
    first.record(&begin[40..]);
    first.record(end);
    // max-file: the log is renamed, and another takes its place.
    fs::rename(first.log(), first.own.join(format!("{}-json.log.1", first.id))).unwrap();
    first.record(&(line(OFFENDER4) + "\n"));
    assert!(eventually(SOON, || status(&world)["jails"][0]["offenses"] == 3), "{:#}", status(&world));
    assert_eq!(world.visit(OFFENDER4, "/"), Some(200), "three offenses are not four");

    // The container is made anew: `docker compose up --force-recreate`. Its last words are read, too.
    first.record(&(line(INNOCENT4) + "\n"));
    fs::remove_dir_all(&first.own).unwrap();
    let second = Container::make(&world, 'b', "npm", "json-file", "npm");
    second.record(&(line(OFFENDER4) + "\n"));
    assert!(eventually(SOON, || world.visit(OFFENDER4, "/").is_none()), "{}", world.agent_log());
    assert_eq!(world.visit(INNOCENT4, "/"), Some(200), "{}", world.table());
    let told = status(&world)["jails"][0].clone();
    assert!(eventually(SOON, || status(&world)["jails"][0]["offenses"] == 5), "{told:#}");
    assert_eq!(told["docker"][0]["containers"][0]["id"], second.id, "{told:#}");
    let of_second = |file: &serde_json::Value| {
        file["container"] == "npm" && file["path"].as_str().is_some_and(|path| path.contains(&second.id))
    };
    assert!(told["files"].as_array().unwrap().iter().any(of_second), "{told:#}");
    let for_people = text(&world.stockade(&["status"]));
    assert!(for_people.contains("docker    npm (bbbbbbbbbbbb): logs by json-file"), "{for_people}");
}

/// Restarted in the middle of a line that dockerd cut up, the agent neither takes the rest for a line nor loses what it is part of.
#[test]
fn a_restart_in_the_middle_of_a_line_changes_nothing() {
    let mut world = World::new();
    let container = Container::make(&world, 'c', "npm", "json-file", "npm");
    world.start_agent(JAIL);
    let whole = line(OFFENDER4);
    for n in 0..4 {
        container.record(&whole[..50]);
        std::thread::sleep(std::time::Duration::from_millis(700));
        assert!(world.stockade(&["stop"]).status.success());
        assert!(eventually(SOON, || world.stockade(&["ping"]).status.code() == Some(3)));
        world.run_agent();
        assert!(!world.table().contains(OFFENDER4), "{n} lines are not four\n{}", world.agent_log());
        container.record(&(whole[50..].to_owned() + "\n"));
    }
    assert!(
        eventually(SOON, || world.table().contains(OFFENDER4)),
        "{}\n{:#}",
        world.agent_log(),
        status(&world)
    );
}

#[test]
fn containers_are_found_by_label_and_drivers_that_keep_nothing_are_told() {
    let mut world = World::new();
    world.start_agent(&JAIL.replace("docker: npm,", "docker: label=com.docker.compose.service=web,"));
    assert!(
        eventually(SOON, || world.agent_log().contains("no containers can be found in")),
        "{}",
        world.agent_log()
    );
    let local = Container::make(&world, 'd', "app-web-1", "local", "web");
    let told = eventually(SOON, || {
        text(&world.stockade(&["status"]))
            .contains("its logging driver is local, whose logs cannot be followed")
    });
    assert!(told, "{}", world.agent_log());
    let check = text(&world.stockade(&["check"]));
    assert!(check.contains("app-web-1: its logging driver is local"), "{check}");
    let file = Container::make(&world, 'f', "app-web-2", "json-file", "web");
    (0..4).for_each(|_| file.record(&(line(OFFENDER4) + "\n")));
    assert!(eventually(SOON, || world.table().contains(OFFENDER4)), "{}", world.agent_log());
    drop(local);
}

#[test]
fn a_container_that_logs_to_the_journal_is_followed_there() {
    let mut world = World::new();
    let journal = Journal::start(&mut world);
    Container::make(&world, 'a', "npm", "journald", "npm");
    world.configure(JAIL);
    let enter = journal.enter();
    world.run_agent_by(&[&enter[0], &enter[1]]);
    let log = |name: &str, message: &str, more: &[(&str, &str)]| {
        let fields = [("CONTAINER_NAME", name), ("CONTAINER_ID_FULL", "aaaa"), ("MESSAGE", message)];
        journal.log(&[&fields[..], more].concat());
    };
    for _ in 0..5 {
        log("other", &line(INNOCENT4), &[]);
        log("npm", &format!("x\n{}", line(INNOCENT4)), &[]);
        // The end of a line that was cut up, as Docker marks it.
        log(
            "npm",
            "x",
            &[
                ("CONTAINER_PARTIAL_MESSAGE", "true"),
                ("CONTAINER_PARTIAL_ID", "p"),
                ("CONTAINER_PARTIAL_ORDINAL", "1"),
            ],
        );
        log(
            "npm",
            &line(INNOCENT4),
            &[
                ("CONTAINER_PARTIAL_ID", "p"),
                ("CONTAINER_PARTIAL_ORDINAL", "2"),
                ("CONTAINER_PARTIAL_LAST", "true"),
            ],
        );
    }
    // Anybody can say that he is a container; whom it is believed of is the user that Docker runs as.
    for _ in 0..5 {
        journal.log_as_other(65534, &[("CONTAINER_NAME", "npm"), ("MESSAGE", &line(INNOCENT4))]);
    }
    (0..4).for_each(|_| log("npm", &line(OFFENDER4), &[]));
    assert!(
        eventually(SOON, || world.table().contains(OFFENDER4)),
        "{}\n{:#}",
        world.agent_log(),
        status(&world)
    );
    assert!(!world.table().contains(INNOCENT4), "{}", world.table());
    let told = || status(&world)["jails"][0]["journal"][0]["match"] == "CONTAINER_NAME=npm _UID=0";
    assert!(eventually(SOON, told), "{:#}", status(&world));
}
