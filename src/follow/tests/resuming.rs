//! What an earlier process marked is gone on with.

use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

/// 70 bytes that tell a file from any other.
fn first(name: &str) -> String {
    format!("{name:_<69}\n")
}

#[test]
fn marks_say_how_far_each_file_was_handed_over() {
    let options = Options { max_line: 8, ..Options::default() };
    let mut scene = Scene::with(options, &[("a.log", From::Start)]);
    scene.append("a.log", "");
    scene.turn();
    assert_eq!(
        scene.marks(),
        [("a.log".into(), 0, String::new())],
        "a file without a line is remembered, too"
    );
    scene.append("a.log", "one\ntw");
    scene.turn();
    assert_eq!(scene.marks(), [("a.log".into(), 4, "one\ntw".into())]);
    scene.append("a.log", "o\n12345678901");
    scene.turn();
    let mark = scene.record.ledger.marks.values().next().unwrap().clone();
    assert_eq!((mark.inside, mark.position.offset), (Inside::LongLine, 19));
    assert_eq!(&*mark.tail, b"one\ntwo\n12345678901");
    let between = mark.at(8);
    assert_eq!((between.inside, between.position.offset, &*between.tail), (Inside::Nothing, 8, &b""[..]));
    scene.rename("a.log", "a.log.1");
    scene.turn();
    assert_eq!(scene.marks()[0].0, "a.log", "what left is known by where it was");
    scene.later(4000);
    assert_eq!(scene.marks(), []);
}

#[test]
fn a_file_goes_on_where_it_was_whatever_its_sources_say() {
    for from in [From::Start, From::End, From::Recent(Duration::from_secs(1))] {
        let mut scene = Scene::new(&[("*.log", from)]);
        scene.turn();
        scene.append("a.log", "1\n2\nha");
        assert_eq!(scene.turn(), "1|2|");
        scene.append("a.log", "lf\n3\n");
        scene.start();
        assert_eq!(scene.turn(), "half|3|");
        assert_eq!(scene.record.before.len(), 1);
        assert_eq!(scene.record.before[0].1, b"2");
        scene.start();
        assert_eq!(scene.turn(), "");
    }
}

#[test]
fn a_line_that_is_being_skipped_stays_skipped() {
    let options = Options { max_line: 8, ..Options::default() };
    let mut scene = Scene::with(options, &[("a.log", From::Start)]);
    scene.append("a.log", "1\n1234567890123");
    assert_eq!(scene.turn(), "1|");
    scene.append("a.log", "end\n2\n");
    scene.start();
    assert_eq!(scene.turn(), "2|");
    assert_eq!(scene.record.before, []);
}

#[test]
fn a_renamed_file_is_read_to_its_end_and_its_successor_whole() {
    for pattern in ["a.log", "*.log", "a.log*"] {
        let mut scene = Scene::new(&[(pattern, From::End)]);
        scene.turn();
        let mut old = scene.append("a.log", "1\n");
        assert_eq!(scene.turn(), "1|");
        scene.stop();
        old.write_all(b"2\n").unwrap();
        scene.rename("a.log", "a.log.1");
        scene.append("a.log", "3\n");
        scene.start();
        assert_eq!(scene.turn(), "2|3|", "{pattern}");
        old.write_all(b"4\n").unwrap();
        assert_eq!(scene.turn(), "4|");
        // Once more, while it is leaving.
        old.write_all(b"5\n").unwrap();
        scene.append("a.log", "6\n");
        scene.start();
        let got = scene.turn();
        assert!(got == "5|6|" || pattern == "a.log*" && got == "6|5|", "{got}");
        scene.later(10);
        let marks = if pattern == "a.log*" { 2 } else { 1 };
        assert_eq!(scene.record.ledger.marks.len(), marks);
        scene.start();
        assert_eq!(scene.turn() + &scene.later(10), "");
    }
}

#[test]
fn a_renamed_file_without_a_successor_is_found() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", "1\n");
    scene.turn();
    scene.append("a.log", "2\n");
    scene.rename("a.log", "a.log-20261121");
    scene.start();
    assert_eq!(scene.turn(), "2|");
    scene.append("a.log", "3\n");
    assert_eq!(scene.turn(), "3|");
}

#[test]
fn rotations_that_nobody_saw_are_read_in_their_order() {
    for dates in [false, true] {
        for pack in [0, 2, 3] {
            let mut scene = Scene::new(&[("a.log", From::End)]);
            scene.turn();
            scene.append("a.log", first("1"));
            scene.turn();
            scene.stop();
            scene.append("a.log", "2\n");
            let names = if dates {
                ["a.log-20261118", "a.log-20261119", "a.log-20261120"]
            } else {
                ["a.log.3", "a.log.2", "a.log.1"]
            };
            // Of another time: not newer, or not of this log.
            scene.append("a.log.4", "no\n");
            scene.append("a.log-20261117", "no\n");
            scene.append("b.log.1", "no\n");
            scene.append("a.log.bak", "no\n");
            for (i, name) in names.iter().enumerate() {
                scene.rename("a.log", name);
                scene.append("a.log", format!("{}\n", i + 3));
            }
            for name in &names[..pack] {
                scene.gzip(name);
            }
            scene.start();
            let got = scene.turn();
            assert_eq!(got + &scene.later(10), "2|3|4|5|", "dates: {dates}, packed: {pack}");
            assert_eq!(scene.record.ledger.marks.len(), 1);
            scene.start();
            assert_eq!(scene.turn(), "");
        }
    }
}

#[test]
fn a_copied_and_emptied_file_is_read_on_in_its_copy() {
    for pattern in ["a.log", "a.log*"] {
        for pack in [false, true] {
            let mut scene = Scene::new(&[(pattern, From::End)]);
            scene.turn();
            scene.append("a.log", first("1"));
            scene.turn();
            scene.stop();
            scene.append("a.log", "2\n");
            scene.copy_and_truncate("a.log", "a.log.1");
            scene.append("a.log", "3\n");
            if pack {
                scene.gzip("a.log.1");
            }
            scene.start();
            let got = scene.turn();
            assert_eq!(got + &scene.later(10), "2|3|", "{pattern} {pack}");
            assert_eq!(scene.record.before.last().unwrap().1, first("1").trim_end().as_bytes());
            scene.start();
            assert_eq!(scene.turn(), "");
        }
    }
}

#[test]
fn copies_that_nobody_saw_are_read_too() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", "1\n");
    scene.turn();
    scene.stop();
    scene.append("a.log", "2\n");
    scene.copy_and_truncate("a.log", "a.log.2");
    scene.append("a.log", "3\n");
    scene.copy_and_truncate("a.log", "a.log.1");
    scene.append("a.log", "4\n");
    scene.start();
    assert_eq!(scene.turn(), "2|3|4|");
}

#[test]
fn a_replaced_file_is_begun_again() {
    let mut scene = Scene::new(&[("a.log", From::End)]);
    scene.turn();
    let file = scene.append("a.log", "1\n2\n");
    scene.turn();
    scene.stop();
    file.set_len(0).unwrap();
    scene.append("a.log", "3\n4\n5\n");
    scene.start();
    assert_eq!(scene.turn(), "3|4|5|");
    assert_eq!(scene.said("a.log", "is lost"), 1);
    // The same length, and the same beginning: what is before the offset tells.
    let file = scene.append("a.log", first("the same").repeat(2) + "end\n");
    scene.turn();
    scene.stop();
    file.set_len(0).unwrap();
    scene.append("a.log", "3\n4\n5\n".to_owned() + &first("the same").repeat(2) + "dne\n");
    scene.start();
    assert_eq!(scene.turn().matches('|').count(), 6);
}

#[test]
fn an_inode_that_was_given_to_another_file_is_not_mistaken() {
    let mut scene = Scene::new(&[("*.log", From::End)]);
    scene.turn();
    scene.append("a.log", first("1"));
    scene.append("b.log", "x\n");
    scene.turn();
    scene.append("b.log", "2\n");
    // As if a.log had had the inode that b.log has now.
    let inode = fs::metadata(scene.path("b.log")).unwrap().ino();
    let marks = std::mem::take(&mut scene.record.ledger.marks);
    let (key, mut mark) = marks.into_iter().find(|(_, mark)| mark.path == scene.path("a.log")).unwrap();
    mark.position.inode = inode;
    scene.record.ledger.marks.insert((key.0, inode), mark);
    scene.remove("a.log");
    scene.start();
    assert_eq!(scene.turn(), "x|2|");
    assert_eq!(scene.marks().len(), 1);
}

#[test]
fn a_device_may_have_another_number_after_a_mount() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", first("1"));
    scene.turn();
    scene.append("a.log", "2\n");
    let marks = std::mem::take(&mut scene.record.ledger.marks);
    for ((dev, inode), mut mark) in marks {
        mark.position.dev += 1;
        scene.record.ledger.marks.insert((dev + 1, inode), mark);
    }
    scene.start();
    assert_eq!(scene.turn(), "2|");
    assert_eq!(scene.record.ledger.marks.len(), 1, "the mark under the old number is forgotten");
    scene.start();
    assert_eq!(scene.turn(), "");
}

#[test]
fn a_file_restored_from_a_copy_goes_on() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", first("1"));
    scene.turn();
    scene.append("a.log", "2\n");
    fs::copy(scene.path("a.log"), scene.path("new")).unwrap();
    scene.rename("new", "a.log");
    scene.start();
    assert_eq!(scene.turn(), "2|");
}

#[test]
fn an_empty_file_is_known_by_its_inode() {
    let mut scene = Scene::new(&[("a.log", From::End)]);
    scene.append("a.log", "");
    scene.turn();
    scene.append("a.log", "1\n");
    scene.start();
    assert_eq!(scene.turn(), "1|");
    // Renamed, too.
    scene.remove("a.log");
    scene.later(10);
    scene.append("a.log", "");
    scene.turn();
    scene.append("a.log", "2\n");
    scene.rename("a.log", "a.log.1");
    scene.append("a.log", "3\n");
    scene.start();
    assert_eq!(scene.turn(), "2|3|");
}

#[test]
fn what_is_gone_is_told_and_forgotten() {
    let mut scene = Scene::new(&[("*.log", From::Start)]);
    for name in ["a.log", "b.log", "c.log"] {
        scene.append(name, first(name));
    }
    scene.turn();
    scene.remove("a.log");
    fs::write(scene.path("b.log.1.xz"), "packed").unwrap();
    scene.remove("b.log");
    scene.start();
    assert_eq!(scene.turn(), "");
    assert_eq!(scene.said("a.log", "is lost: there is no"), 1, "{:?}", scene.record.events);
    assert_eq!(scene.said("b.log", "delaycompress"), 1);
    assert_eq!(scene.marks().iter().map(|mark| &mark.0[..]).collect::<Vec<_>>(), ["c.log"]);
    // Whoever is not asked for any more is forgotten without a word.
    scene.set_sources(&[("d.log", From::Start)]);
    scene.start();
    scene.turn();
    assert_eq!((scene.marks().len(), scene.said("c.log", "is lost")), (0, 0));
}

#[test]
fn a_directory_that_is_not_there_yet_is_waited_for() {
    let mut scene = Scene::new(&[("v/*.log", From::End)]);
    fs::create_dir(scene.path("v")).unwrap();
    scene.turn();
    scene.append("v/a.log", first("1"));
    scene.turn();
    scene.append("v/a.log", "2\n");
    scene.rename("v", "unmounted");
    scene.start();
    assert_eq!(scene.turn() + &scene.later(600), "");
    assert_eq!(scene.marks().len(), 1);
    scene.rename("unmounted", "v");
    assert_eq!(scene.turn(), "2|");
    // But not for ever.
    scene.remove("v/a.log");
    fs::remove_dir(scene.path("v")).unwrap();
    scene.start();
    scene.turn();
    assert_eq!(scene.marks().len(), 1);
    scene.later(4000);
    assert_eq!((scene.marks().len(), scene.said("v/a.log", "is lost")), (0, 1));
}

#[test]
fn the_files_beside_what_a_link_leads_to_are_looked_at() {
    let mut scene = Scene::new(&[("link.log", From::Start)]);
    fs::create_dir(scene.path("d")).unwrap();
    symlink(scene.path("d/real"), scene.path("link.log")).unwrap();
    scene.append("d/real", first("1"));
    scene.turn();
    scene.append("d/real", "2\n");
    scene.rename("d/real", "d/real.1");
    scene.append("d/real", "3\n");
    scene.start();
    assert_eq!(scene.turn(), "2|3|");
    scene.append("d/real", "4\n");
    scene.copy_and_truncate("d/real", "d/real.2");
    assert_eq!(scene.turn(), "4|");
}

#[test]
fn a_damaged_archive_is_told() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", first("1"));
    scene.turn();
    let lines: String = (0..20_000_u32).map(|i| format!("{}\n", i.wrapping_mul(2_654_435_761))).collect();
    scene.append("a.log", &lines);
    scene.rename("a.log", "a.log.1");
    scene.append("a.log", "last\n");
    scene.gzip("a.log.1");
    let mut packed = fs::read(scene.path("a.log.1.gz")).unwrap();
    let middle = packed.len() / 2;
    packed.truncate(middle);
    fs::write(scene.path("a.log.1.gz"), &packed).unwrap();
    scene.start();
    let got = scene.turn();
    assert!(got.ends_with("last|") && got.len() < lines.len(), "{}", got.len());
    assert_eq!(scene.marks().len(), 2, "it may be that gzip is still writing it");
    scene.later(10);
    assert_eq!((scene.marks().len(), scene.said("a.log", "failed to unpack")), (1, 1));
    assert_eq!(scene.said("a.log", "is lost"), 1);
}

#[test]
fn a_large_archive_takes_many_short_turns() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    let line = first("1");
    scene.append("a.log", line.repeat(100_000));
    scene.turn();
    scene.append("a.log", first("2").repeat(100_000));
    scene.rename("a.log", "a.log.1");
    scene.gzip("a.log.1");
    scene.append("a.log", "3\n");
    scene.start();
    let before = scene.record.lines.len();
    let mut turns = 0;
    loop {
        let turn = scene.follower.turn(scene.now, Duration::ZERO, &mut scene.record);
        assert!(turn.bytes < 4 << 20, "{turn:?}");
        turns += 1;
        if !turn.pending {
            break;
        }
    }
    assert!(turns > 10, "{turns}");
    let came = &scene.record.lines[before..];
    assert_eq!((came.len(), &came[0].1[..1], &came[100_000].1[..]), (100_001, &b"2"[..], &b"3"[..]));
    scene.later(1);
    assert_eq!(scene.marks().len(), 1);
}

#[test]
fn thousands_of_marks_are_resumed_at_once() {
    let mut scene = Scene::new(&[("*.log", From::End)]);
    scene.turn();
    for i in 0..300 {
        scene.append(&format!("{i}.log"), first(&format!("{i}")));
    }
    scene.turn();
    scene.stop();
    for i in 0..300 {
        let name = format!("{i}.log");
        scene.append(&name, format!("old {i}\n"));
        match i % 3 {
            0 => {}
            1 => scene.rename(&name, &format!("{name}.1")),
            _ => scene.copy_and_truncate(&name, &format!("{name}.1")),
        }
        scene.append(&name, format!("new {i}\n"));
    }
    scene.start();
    let got = scene.turn();
    for i in 0..300 {
        assert_eq!(got.matches(&format!("old {i}|")).count(), 1);
        assert_eq!(got.matches(&format!("new {i}|")).count(), 1);
    }
    assert_eq!(got.matches('|').count(), 600);
    scene.later(10);
    assert_eq!(scene.record.ledger.marks.len(), 300);
}
