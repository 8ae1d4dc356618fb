use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;

#[test]
fn what_appears_later_is_read_from_its_start() {
    let mut scene = Scene::new(&[("*.log", From::End), ("x/y/z.log", From::End)]);
    scene.append("old.log", "1\n2");
    assert_eq!(scene.turn(), "");
    scene.append("old.log", "\n");
    assert_eq!(scene.turn(), "2|");
    scene.append("new.log", "3\n");
    fs::create_dir_all(scene.path("x/y")).unwrap();
    scene.append("x/y/z.log", "4\n");
    let got = scene.turn();
    assert!(got == "3|4|" || got == "4|3|", "{got}");
}

#[test]
fn recent_lines_of_an_old_file_are_read() {
    let day = 86_400;
    let mut scene = Scene::new(&[("*.log", From::Recent(Duration::from_secs(60)))]);
    let text: String = (0..day).map(|second| format!("{second} GET /\n")).collect();
    scene.append("a.log", &text);
    scene.append("b.log", "no times\n");
    scene.now = Timestamp::from_secs(day);
    scene.turn();
    assert_eq!(scene.record.lines.len(), 60 + 1);
    assert_eq!(scene.said("b.log", "found no time"), 1);
    assert_eq!(scene.said("a.log", "found no time"), 0);
}

#[test]
fn sources_that_share_a_file_read_it_once_and_as_the_widest_wants() {
    let mut scene = Scene::new(&[("*.log", From::End), ("a.log", From::Start), ("a.*", From::End)]);
    scene.append("a.log", "1\n");
    scene.append("b.log", "2\n");
    assert_eq!(scene.turn(), "1|");
    assert_eq!(scene.record.blocks[0].3, [SourceId(0), SourceId(1), SourceId(2)]);
    assert_eq!(scene.status("b.log").sources, [SourceId(0)]);
}

#[test]
fn what_is_missing_is_said_once() {
    let mut scene =
        Scene::new(&[("x/y/a.log", From::Start), ("*/b.log", From::Start), ("c*.log", From::Start)]);
    scene.turn();
    scene.turn();
    assert_eq!(scene.record.events.len(), 3, "{:?}", scene.record.events);
    assert_eq!(scene.said("x", "waiting for"), 1);
    let waiting = |scene: &Scene, i: usize| scene.follower.status().sources[i].waiting_for.clone();
    assert_eq!(waiting(&scene, 0), Some(scene.path("x").display().to_string()));
    assert_eq!(waiting(&scene, 1), Some(scene.path("*/b.log").display().to_string()));
    fs::create_dir_all(scene.path("x/y")).unwrap();
    scene.append("x/b.log", "");
    scene.append("c1.log", "");
    scene.turn();
    assert_eq!(waiting(&scene, 0), Some(scene.path("x/y/a.log").display().to_string()));
    assert_eq!((waiting(&scene, 1), waiting(&scene, 2)), (None, None));
    scene.append("x/y/a.log", "1\n");
    assert_eq!(scene.turn(), "1|");
    assert_eq!(waiting(&scene, 0), None);
}

#[test]
fn globs_hold_in_directories_too() {
    let mut scene = Scene::new(&[("*/log[s0-9]/a?.log", From::Start)]);
    for directory in ["x/logs", "y/log1", "y/logx", "z"] {
        fs::create_dir_all(scene.path(directory)).unwrap();
        scene.append(&format!("{directory}/a1.log"), format!("{directory}\n"));
    }
    scene.append("x/logs/b1.log", "no\n");
    scene.append("log1", "a file where a directory might be\n");
    scene.turn();
    let mut got: Vec<_> = scene.record.lines.iter().map(|(_, line)| String::from_utf8_lossy(line)).collect();
    got.sort();
    assert_eq!(got, ["x/logs", "y/log1"]);
}

#[test]
fn symbolic_links_are_followed() {
    let mut scene = Scene::new(&[("link.log", From::Start), ("d/*.log", From::Start)]);
    fs::create_dir(scene.path("real")).unwrap();
    symlink("real", scene.path("d")).unwrap();
    symlink("real/a.log", scene.path("link.log")).unwrap();
    scene.append("real/a.log", "1\n");
    assert_eq!(scene.turn(), "1|");
    scene.append("real/b.log", "2\n");
    assert_eq!(scene.turn(), "2|");
    // The link is set to another file: a rotation.
    scene.append("real/c", "3\n");
    scene.remove("link.log");
    symlink("real/c", scene.path("link.log")).unwrap();
    assert_eq!(scene.turn(), "3|");
}

#[test]
fn what_is_no_log_is_told_and_left_alone() {
    let mut scene = Scene::new(&[
        ("pipe", From::Start),
        ("stdout", From::Start),
        ("directory", From::Start),
        ("old.gz", From::Start),
        ("*.log*", From::Start),
    ]);
    assert!(Command::new("mkfifo").arg(scene.path("pipe")).status().unwrap().success());
    symlink("/dev/null", scene.path("stdout")).unwrap();
    fs::create_dir(scene.path("directory")).unwrap();
    fs::create_dir(scene.path("x.log")).unwrap();
    scene.append("old.gz", "1\n");
    scene.append("a.log.2.gz", "2\n");
    scene.turn();
    assert_eq!(scene.turn(), "");
    for (name, what) in
        [("pipe", "a pipe"), ("stdout", "a device"), ("directory", "a directory"), ("old.gz", "compressed")]
    {
        assert_eq!(scene.said(name, what), 1, "{name}: {:?}", scene.record.events);
    }
    assert_eq!(scene.said("x.log", "not following") + scene.said("a.log.2.gz", "not following"), 0);
    // The pipe gives way to a file.
    scene.remove("pipe");
    scene.append("pipe", "3\n");
    assert_eq!(scene.turn(), "3|");
}

#[test]
fn a_link_to_itself_is_an_error_that_stops_nothing_else() {
    let mut scene = Scene::new(&[("*.log", From::Start)]);
    symlink("a.log", scene.path("a.log")).unwrap();
    scene.append("b.log", "1\n");
    assert_eq!(scene.turn(), "1|");
    scene.turn();
    assert_eq!(scene.said("a.log", "failed to open"), 1);
    scene.remove("a.log");
    scene.append("a.log", "2\n");
    assert_eq!(scene.turn(), "2|");
}

#[test]
fn a_reload_keeps_what_is_still_wanted() {
    let mut scene = Scene::new(&[("a.log", From::Start), ("b.log", From::Start)]);
    scene.append("a.log", "1\n");
    scene.append("b.log", "2\n");
    scene.append("c.log", "3\n");
    scene.turn();
    let before = scene.status("a.log");
    scene.append("a.log", "4\n");
    scene.append("b.log", "5\n");
    // The second source becomes another one, which begins at its end.
    scene.set_sources(&[("a.log", From::End), ("c.log", From::End)]);
    assert_eq!(scene.turn(), "4|");
    let after = scene.status("a.log");
    assert_eq!((after.id, after.position.inode), (before.id, before.position.inode));
    let open: Vec<_> = scene.follower.status().files.into_iter().map(|file| file.path).collect();
    assert_eq!(open, [scene.path("a.log"), scene.path("c.log")]);
    assert_eq!(scene.said("b.log", "closed"), 1);
    // The same file under another pattern keeps its place.
    scene.append("a.log", "6\n");
    scene.set_sources(&[("*.log", From::Start), ("c.log", From::End)]);
    let got = scene.turn();
    assert!(got == "6|2|5|" || got == "2|5|6|", "{got}");
    assert_eq!(scene.status("c.log").sources, [SourceId(0), SourceId(1)]);
}

#[test]
fn a_reload_keeps_a_file_that_is_being_rotated() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    let mut old = scene.append("a.log", "1\n");
    scene.turn();
    scene.rename("a.log", "a.log.1");
    scene.turn();
    scene.set_sources(&[("a.log", From::Start)]);
    old.write_all(b"2\n").unwrap();
    assert_eq!(scene.turn(), "2|");
    // Under another number it is the same file, which is no longer where the pattern looks.
    let pattern = scene.path("*.log").display().to_string();
    scene.follower.set_sources(&[Source { id: SourceId(7), pattern, from: From::End }]);
    old.write_all(b"3\n").unwrap();
    assert_eq!(scene.turn(), "3|");
    assert_eq!(scene.follower.status().files[0].sources, [SourceId(7)]);
    scene.set_sources(&[]);
    scene.turn();
    assert_eq!(scene.follower.status(), Status::default());
}

/// Set in a process that may have few files open.
const FEW: &str = "STOCKADE_TEST_WITH_FEW_FILES";

#[test]
fn many_files_are_fine_and_too_many_are_told_once() {
    let mut scene = Scene::new(&[("*.log", From::Start)]);
    for i in 0..500 {
        scene.append(&format!("{i}.log"), format!("{i}\n"));
    }
    scene.turn();
    scene.turn();
    if std::env::var_os(FEW).is_some() {
        let told = scene.record.events.iter().filter(|event| event.contains("LimitNOFILE"));
        assert_eq!(told.count(), 1, "{:?}", scene.record.events);
        let came = scene.record.lines.len();
        assert!((10..100).contains(&came), "{came}");
        return;
    }
    assert_eq!(scene.record.lines.len(), 500);
    for i in 0..500 {
        scene.append(&format!("{i}.log"), "again\n");
    }
    scene.turn();
    assert_eq!(scene.record.lines.len(), 1000);
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 100 && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "follow::tests::sources::many_files_are_fine_and_too_many_are_told_once"])
        .env(FEW, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{output:?}");
}
