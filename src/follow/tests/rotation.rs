use super::*;

#[test]
fn a_renamed_file_is_read_on_beside_its_successor() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    let mut old = scene.append("a.log", "1\n");
    assert_eq!(scene.turn(), "1|");
    old.write_all(b"2\n").unwrap();
    scene.rename("a.log", "a.log.1");
    old.write_all(b"3\n").unwrap();
    assert_eq!(scene.turn(), "2|3|");
    assert_eq!(scene.said("a.log", "rotated away"), 1);
    // Before the writer reopens: nothing has taken the name, however long it takes.
    old.write_all(b"4\n").unwrap();
    assert_eq!(scene.later(600), "4|");
    scene.append("a.log", "5\n");
    assert_eq!(scene.turn(), "5|");
    old.write_all(b"6\nhalf").unwrap();
    assert_eq!(scene.later(4), "6|");
    assert_eq!(scene.status("a.log").rotations, 1);
    assert_eq!(scene.said("a.log", "closed"), 0);
    // Quiet for long enough now: the half line is all that will come of it.
    assert_eq!(scene.later(6), "half|");
    assert_eq!(scene.said("a.log", "closed"), 1);
    assert_eq!(scene.follower.status().files.len(), 1);
}

#[test]
fn the_old_file_comes_before_the_new() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", "1\n");
    scene.turn();
    scene.append("a.log", "2\n");
    scene.rename("a.log", "a.log.1");
    scene.append("a.log", "3\n");
    assert_eq!(scene.turn(), "2|3|");
}

#[test]
fn a_renamed_file_that_nothing_replaces_is_closed_in_the_end() {
    let mut scene = Scene::new(&[("*.log", From::Start)]);
    scene.append("day-1.log", "1\n");
    scene.turn();
    scene.rename("day-1.log", "day-1.old");
    scene.turn();
    assert_eq!(scene.follower.status().files.len(), 1);
    scene.later(3601);
    assert_eq!(scene.follower.status().files.len(), 0);
}

#[test]
fn a_deleted_file_is_read_to_its_end() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    let mut old = scene.append("a.log", "1\n");
    assert_eq!(scene.turn(), "1|");
    old.write_all(b"2\n3").unwrap();
    scene.remove("a.log");
    assert_eq!(scene.turn(), "2|");
    assert_eq!(scene.said("a.log", "was deleted"), 1);
    // A writer that does not know it yet keeps it.
    old.write_all(b"\n4").unwrap();
    assert_eq!(scene.later(4), "3|");
    assert_eq!(scene.later(4), "");
    assert_eq!(scene.later(4), "4|");
    assert_eq!(scene.follower.status().files.len(), 0);
    scene.append("a.log", "5\n");
    assert_eq!(scene.turn(), "5|");
}

#[test]
fn a_rotated_sibling_that_a_glob_matches_is_the_same_file() {
    let mut scene = Scene::new(&[("a.log*", From::Start)]);
    let mut old = scene.append("a.log", "1\n");
    assert_eq!(scene.turn(), "1|");
    scene.rename("a.log", "a.log.1");
    scene.append("a.log", "2\n");
    assert_eq!(scene.turn(), "2|");
    old.write_all(b"3\nhalf").unwrap();
    assert_eq!(scene.turn(), "3|");
    assert_eq!((scene.status("a.log.1").lines, scene.status("a.log").rotations), (2, 1));
    // Nobody completes a line of a rotated log after that time.
    assert_eq!(scene.later(6), "half|");
    assert_eq!(scene.later(6), "");
    // Compressed: the original goes, the copy is none of ours.
    scene.append("a.log.1.gz", "compressed\n");
    scene.remove("a.log.1");
    assert_eq!(scene.turn() + &scene.later(6), "");
    assert_eq!(scene.follower.status().files.len(), 1);
}

#[test]
fn a_whole_row_of_siblings_moves_up() {
    let mut scene = Scene::new(&[("a.log*", From::Start)]);
    for name in ["a.log.2", "a.log.1", "a.log"] {
        scene.append(name, format!("{name}\n"));
    }
    scene.turn();
    assert_eq!(scene.record.lines.len(), 3);
    scene.rename("a.log.2", "a.log.3");
    scene.rename("a.log.1", "a.log.2");
    scene.rename("a.log", "a.log.1");
    scene.append("a.log", "new\n");
    assert_eq!(scene.turn(), "new|");
    assert_eq!(scene.turn() + &scene.later(10), "");
    assert_eq!(scene.follower.status().files.len(), 4);
}

#[test]
fn a_file_renamed_back_stays() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", "1\nha");
    scene.turn();
    scene.rename("a.log", "b");
    scene.turn();
    scene.rename("b", "a.log");
    assert_eq!(scene.turn() + &scene.later(4000), "");
    scene.append("a.log", "lf\n");
    assert_eq!(scene.turn(), "half|");
}

#[test]
fn a_replacement_by_rename_is_a_rotation() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", "1\n");
    scene.turn();
    scene.append("a.tmp", "2\n");
    scene.rename("a.tmp", "a.log");
    assert_eq!(scene.turn(), "2|");
    assert_eq!(scene.status("a.log").rotations, 1);
}

#[test]
fn clocks_may_be_set_back() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", "1\n");
    scene.turn();
    scene.remove("a.log");
    scene.turn();
    scene.now = Timestamp::from_secs(1000);
    scene.turn();
    scene.later(6);
    assert_eq!(scene.follower.status().files.len(), 0);
}

/// Nothing but the waiting itself looks at the old file here: its time begins anew when it turns out to have grown.
#[test]
fn a_file_that_grew_unseen_is_not_closed_yet() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    let slow = Options { poll: Duration::from_secs(1_000_000), inotify: false, ..Options::default() };
    scene.follower = Follower::new(slow);
    scene.set_sources(&[("a.log", From::Start)]);
    let mut old = scene.append("a.log", "1\n");
    assert_eq!(scene.turn(), "1|");
    scene.remove("a.log");
    scene.set_sources(&[("a.log", From::Start)]);
    scene.turn();
    for line in ["2\n", "3\n", "4\n"] {
        old.write_all(line.as_bytes()).unwrap();
        assert_eq!(scene.later(6), line.replace('\n', "|"));
        assert_eq!(scene.follower.status().files.len(), 1);
    }
    scene.later(6);
    assert_eq!(scene.follower.status().files.len(), 0);
}
