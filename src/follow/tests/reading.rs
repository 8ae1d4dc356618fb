use super::*;

#[test]
fn lines_come_when_their_newline_does() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", "one\ntw");
    assert_eq!(scene.turn(), "one|");
    assert_eq!(scene.turn(), "");
    scene.append("a.log", "o\r\n\nthree");
    assert_eq!(scene.turn(), "two||");
    assert_eq!(scene.status("a.log").behind, 5);
    scene.append("a.log", "\n");
    assert_eq!(scene.turn(), "three|");
    let status = scene.status("a.log");
    assert_eq!((status.lines, status.behind, status.position.offset, status.size), (4, 0, 16, 16));
}

#[test]
fn any_bytes_pass() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", b"\0a\0\n\xff\xfe\xc3\n\0\n");
    scene.turn();
    let lines: Vec<&[u8]> = scene.record.lines.iter().map(|(_, line)| &line[..]).collect();
    assert_eq!(lines, [&b"\0a\0"[..], b"\xff\xfe\xc3", b"\0"]);
}

#[test]
fn an_over_long_line_is_left_out_whole() {
    let mut scene = Scene::with(Options { max_line: 8, ..Options::default() }, &[("a.log", From::Start)]);
    scene.append("a.log", "12345678\n123456789\nnext\n");
    assert_eq!(scene.turn(), "12345678|next|");
    // In pieces: the end of it must not pass for a line.
    scene.append("a.log", "123456789");
    assert_eq!(scene.turn(), "");
    assert_eq!(scene.status("a.log").behind, 0, "what will be skipped is not held");
    scene.append("a.log", "0");
    assert_eq!(scene.turn(), "");
    scene.append("a.log", "end\nafter\n");
    assert_eq!(scene.turn(), "after|");
    assert_eq!(scene.status("a.log").skipped_long, 2);
}

#[test]
fn a_huge_line_needs_no_memory() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    let file = scene.append("a.log", "first\n");
    // A hole: a line of 100 MB of NULs that takes no disk.
    file.set_len(100 << 20).unwrap();
    assert_eq!(scene.turn(), "first|");
    scene.append("a.log", "\nlast\n");
    assert_eq!(scene.turn(), "last|");
    assert_eq!(scene.status("a.log").skipped_long, 1);
}

#[test]
fn one_huge_file_does_not_starve_the_others() {
    let mut scene = Scene::new(&[("*.log", From::Start)]);
    scene.append("big.log", "x".repeat(99).add_newline().repeat(100_000));
    scene.append("small.log", "y\n");
    let turn = scene.follower.turn(scene.now, Duration::ZERO, &mut scene.record);
    assert!(turn.pending);
    assert!(turn.bytes < 2 << 20, "{turn:?}");
    assert!(scene.record.lines.iter().any(|(_, line)| line == b"y"));
    scene.turn();
    assert_eq!(scene.record.lines.len(), 100_001);
    assert_eq!(scene.status("big.log").lines, 100_000);
}

#[test]
fn a_turn_ends_although_there_is_more() {
    let options = Options { turn_budget: 3 << 20, ..Options::default() };
    let mut scene = Scene::with(options, &[("*.log", From::Start)]);
    for name in ["a.log", "b.log", "c.log", "d.log", "e.log", "f.log"] {
        scene.append(name, "x".repeat(99).add_newline().repeat(10_000));
    }
    let turn = scene.follower.turn(scene.now, Duration::ZERO, &mut scene.record);
    assert!(turn.pending && turn.bytes <= 4 << 20, "{turn:?}");
    scene.turn();
    assert_eq!(scene.record.lines.len(), 60_000);
}

#[test]
fn offsets_and_backlog_are_told() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    scene.append("a.log", "one\ntwo\n");
    scene.turn();
    scene.append("a.log", "three\n");
    scene.turn();
    let file = scene.record.opened[0].0;
    let sources = vec![SourceId(0)];
    assert_eq!(scene.record.blocks, [(file, 0, false, sources.clone()), (file, 8, true, sources)]);
}

#[test]
fn a_truncated_file_is_begun_again() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    let file = scene.append("a.log", "one\ntwo\nhalf");
    assert_eq!(scene.turn(), "one|two|");
    file.set_len(0).unwrap();
    assert_eq!(scene.turn(), "");
    scene.append("a.log", "three\n");
    assert_eq!(scene.turn(), "three|");
    assert_eq!((scene.status("a.log").truncations, scene.said("a.log", "was truncated")), (1, 1));
}

#[test]
fn a_file_written_anew_to_a_greater_length_is_begun_again() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    let file = scene.append("a.log", "1 one\n");
    assert_eq!(scene.turn(), "1 one|");
    file.set_len(0).unwrap();
    scene.append("a.log", "2 two\n3 three\n");
    assert_eq!(scene.turn(), "2 two|3 three|");
    assert_eq!(scene.status("a.log").truncations, 1);
}

#[test]
fn a_writer_that_does_not_append_leaves_a_hole() {
    let mut scene = Scene::new(&[("a.log", From::Start)]);
    let mut file = File::create(scene.path("a.log")).unwrap();
    file.write_all(b"one\ntwo\n").unwrap();
    assert_eq!(scene.turn(), "one|two|");
    // Seen while it is empty, ...
    file.set_len(0).unwrap();
    assert_eq!(scene.turn(), "");
    file.write_all(b"three\n").unwrap();
    assert_eq!(scene.turn(), "three|");
    // ... and seen when it is longer again.
    file.set_len(0).unwrap();
    file.write_all(b"four\n").unwrap();
    assert_eq!(scene.turn(), "four|");
    file.write_all(b"five\n").unwrap();
    assert_eq!(scene.turn(), "five|");
}

trait AddNewline {
    fn add_newline(self) -> String;
}

impl AddNewline for String {
    fn add_newline(mut self) -> String {
        self.push('\n');
        self
    }
}
