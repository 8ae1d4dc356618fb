//! `copytruncate`, and globs that match the copies.

use super::*;

fn first(name: &str) -> String {
    format!("{name:_<69}\n")
}

#[test]
fn what_was_not_read_before_a_truncation_is_read_in_the_copy() {
    for pattern in ["a.log", "a.log*", "*.log*"] {
        let mut scene = Scene::new(&[(pattern, From::Start)]);
        scene.append("a.log", "1\n");
        assert_eq!(scene.turn(), "1|");
        for i in 2..10 {
            scene.append("a.log", format!("{i} old\n"));
            for n in (1..i - 1).rev() {
                scene.rename(&format!("a.log.{n}"), &format!("a.log.{}", n + 1));
            }
            scene.copy_and_truncate("a.log", "a.log.1");
            scene.append("a.log", format!("{i} new\n"));
            assert_eq!(scene.turn(), format!("{i} old|{i} new|"), "{pattern}");
            assert_eq!(scene.turn() + &scene.later(10), "");
        }
        let marks = if pattern == "a.log" { 1 } else { 9 };
        assert_eq!(scene.record.ledger.marks.len(), marks);
    }
}

#[test]
fn a_copy_that_is_being_made_is_not_read() {
    for pattern in ["a.log", "a.log*"] {
        let mut scene = Scene::new(&[(pattern, From::Start)]);
        let log = scene.append("a.log", first("1") + "2\n");
        scene.turn();
        let all = first("1") + "2\n3\n4\n";
        let mut copy = scene.append("a.log.1", "");
        assert_eq!(scene.turn(), "");
        copy.write_all(&all.as_bytes()[..10]).unwrap();
        assert_eq!(scene.turn(), "");
        scene.append("a.log", "3\n");
        copy.write_all(&all.as_bytes()[10..73]).unwrap();
        assert_eq!(scene.turn(), "3|");
        scene.append("a.log", "4\n");
        copy.write_all(&all.as_bytes()[73..]).unwrap();
        log.set_len(0).unwrap();
        assert_eq!(scene.turn(), "4|", "{pattern}");
        scene.append("a.log", "5\n");
        assert_eq!(scene.turn(), "5|");
        // Somebody goes on writing to the copy.
        copy.write_all(b"6\n").unwrap();
        assert_eq!(scene.turn(), "6|");
    }
}

#[test]
fn a_copy_of_a_log_that_stays_is_passed_over() {
    let mut scene = Scene::new(&[("a.log*", From::Start)]);
    scene.append("a.log", first("1"));
    scene.turn();
    fs::copy(scene.path("a.log"), scene.path("a.log.bak")).unwrap();
    assert_eq!(scene.turn(), "");
    scene.append("a.log", "2\n");
    assert_eq!(scene.turn() + &scene.later(10), "2|");
    scene.start();
    assert_eq!(scene.turn(), "");
    // It gets lines of its own.
    scene.append("a.log.bak", "3\n");
    assert_eq!(scene.turn() + &scene.later(1), "3|");
    scene.append("a.log", "4\n");
    assert_eq!(scene.turn(), "4|");
    scene.start();
    assert_eq!(scene.turn(), "");
}

#[test]
fn another_log_with_the_same_first_line_is_no_copy() {
    let banner = first("# banner");
    let mut scene = Scene::new(&[("a.log*", From::Start)]);
    scene.append("a.log", banner.clone() + "1\n");
    scene.turn();
    scene.append("a.log.x", banner.clone() + "2\n");
    assert_eq!(scene.turn().matches("2|").count(), 1);
    // Emptied without a copy: an older one that began with the same line is none.
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log.1", banner.clone() + "old\nolder\noldest\n");
    let log = scene.append("a.log", banner.clone() + "1\n");
    scene.turn();
    log.set_len(0).unwrap();
    scene.append("a.log", "2\n");
    assert_eq!(scene.turn(), "2|");
}

#[test]
fn a_log_written_anew_to_the_same_length_and_beginning_is_noticed() {
    let banner = first("# banner");
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    let log = scene.append("a.log", banner.clone() + "1\n");
    scene.turn();
    log.set_len(0).unwrap();
    scene.append("a.log", banner + "2\n3\n");
    assert!(scene.turn().ends_with("|2|3|"));
}

#[test]
fn a_new_log_that_begins_like_the_rotated_one_is_read_whole() {
    let banner = first("# banner");
    let mut scene = Scene::new(&[("a.log*", From::Start)]);
    scene.append("a.log", banner.clone() + "1\n");
    scene.turn();
    scene.rename("a.log", "a.log.1");
    scene.append("a.log", banner.clone() + "1\n");
    assert!(scene.turn().ends_with("|1|"));
    scene.rename("a.log.1", "a.log.2");
    scene.rename("a.log", "a.log.1");
    scene.append("a.log", banner + "1\n");
    scene.start();
    assert!(scene.turn().ends_with("|1|"));
}
