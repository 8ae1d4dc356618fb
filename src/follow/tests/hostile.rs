//! Marks that no follower ever told: of a ledger that was damaged, or that somebody wrote.

use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;

const CONTENT: &str = "first\nsecond\nthird\n";

#[derive(Clone, Debug)]
struct Wild {
    path: &'static str,
    right_inode: bool,
    right_device: bool,
    offset: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
    inside: Inside,
}

fn wild() -> impl Strategy<Value = Wild> {
    let path = prop::sample::select(vec![
        "a.log",
        "b.log",
        "a.log.1",
        "",
        "x/y/z.log",
        "..",
        "a.log.1.gz",
        "/",
        "dir",
    ]);
    let offset = prop_oneof![
        0..40_u64,
        Just(u64::MAX),
        Just(i64::MAX as u64),
        Just(i64::MAX as u64 + 1),
        any::<u64>()
    ];
    let bytes = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            (0..CONTENT.len()).prop_map(|n| CONTENT.as_bytes()[..n].to_vec()),
            (0..CONTENT.len()).prop_map(|n| CONTENT.as_bytes()[n..].to_vec()),
        ]
    };
    let inside = prop::sample::select(vec![Inside::Nothing, Inside::LongLine, Inside::OldLine]);
    (path, any::<[bool; 2]>(), offset, bytes(), bytes(), inside).prop_map(
        |(path, [right_inode, right_device], offset, head, tail, inside)| Wild {
            path,
            right_inode,
            right_device,
            offset,
            head,
            tail,
            inside,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn wild_marks_do_no_harm(marks in prop::collection::vec(wild(), 1..8)) {
        let mut scene = Scene::new(&[("*.log", From::Start)]);
        for name in ["a.log", "a.log.1", "b.log.2", "a.log.2.gz"] {
            scene.append(name, CONTENT);
        }
        scene.append("packed", CONTENT);
        scene.gzip("packed");
        scene.rename("packed.gz", "a.log.3.gz");
        fs::create_dir(scene.path("dir")).unwrap();
        let there = fs::metadata(scene.path("a.log")).unwrap();
        let marks: Vec<_> = marks
            .into_iter()
            .map(|wild| Mark {
                path: scene.path(wild.path),
                position: Position {
                    dev: if wild.right_device { there.dev() } else { 1 << 63 },
                    inode: if wild.right_inode { there.ino() } else { u64::MAX },
                    offset: wild.offset,
                },
                head: wild.head.into(),
                inside: wild.inside,
                tail: wild.tail.into(),
            })
            .collect();
        // What they say of a.log may be true, in which case it is believed.
        let believable = marks.iter().any(|mark| {
            let offset = usize::try_from(mark.position.offset).unwrap_or(usize::MAX);
            CONTENT.as_bytes().starts_with(&mark.head)
                && CONTENT.as_bytes().get(..offset).is_some_and(|done| done.ends_with(&mark.tail))
        });
        scene.follower.resume(marks);
        // Nobody knew this one.
        scene.append("c.log", CONTENT);
        scene.turn();
        scene.later(4000);
        scene.later(10);
        let of = |scene: &Scene, name: &str| {
            let id = scene.record.opened.iter().find(|(_, path)| *path == scene.path(name)).map(|(id, _)| *id);
            scene.record.lines.iter().filter(|(file, _)| Some(*file) == id).count()
        };
        prop_assert_eq!(of(&scene, "c.log"), 3);
        if !believable {
            prop_assert_eq!(of(&scene, "a.log"), 3);
        }
        prop_assert_eq!(scene.marks().len(), 2);
    }
}
