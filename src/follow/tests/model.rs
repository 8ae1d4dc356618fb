//! Random sequences of what happens to log files, beside a model that says which lines must come.
//!
//! Promised: of every file that was under a followed name at some turn each complete line comes exactly once and in
//! order, whatever was done to its names since; over-long lines are left out; a file that left is read until it was
//! quiet for long enough, and then its last line comes too. Not promised, and so kept out of the sequences: lines of a
//! file that had no followed name at any turn; lines that were truncated away before a turn could read them; what is
//! written to a file after it was closed.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MAX_LINE: usize = 12;
const NAMES: [&str; 5] = ["a.log", "a.log.1", "b.log", "c", "d/a.log"];

#[derive(Clone, Debug)]
enum Action {
    /// Makes the file, if there is none, and opens it.
    Open(usize),
    /// Writes through one of the open handles, whatever became of the file's name.
    Write(prop::sample::Index, Chunk),
    Rename(usize, usize),
    Delete(usize),
    /// Empties the file in place once it was read.
    Truncate(usize),
    Turn,
    /// Writers finish their lines and leave the files that nobody follows; time goes by.
    Quiet,
    /// The same sources under other numbers, as a reload may make them.
    Reload,
}

#[derive(Clone, Copy, Debug)]
enum Chunk {
    Line(&'static str),
    Part(&'static str),
    End,
}

fn action() -> impl Strategy<Value = Action> {
    let text = prop::sample::select(vec![
        "",
        "\r",
        "\0",
        "\u{e9}x",
        "123456",
        "1234567",
        "12345678",
        "123456789012345678901",
    ]);
    let chunk = prop_oneof![
        4 => text.clone().prop_map(Chunk::Line),
        2 => text.prop_map(Chunk::Part),
        1 => Just(Chunk::End),
    ];
    let name = 0..NAMES.len();
    prop_oneof![
        4 => name.clone().prop_map(Action::Open),
        10 => (any::<prop::sample::Index>(), chunk).prop_map(|(i, chunk)| Action::Write(i, chunk)),
        4 => (name.clone(), name.clone()).prop_map(|(from, to)| Action::Rename(from, to)),
        2 => name.clone().prop_map(Action::Delete),
        2 => name.prop_map(Action::Truncate),
        6 => Just(Action::Turn),
        1 => Just(Action::Quiet),
        1 => Just(Action::Reload),
    ]
}

/// One file, whatever its names.
struct Inode {
    handle: File,
    /// What is in it.
    content: Vec<u8>,
    /// What was in it before truncations: lines that came, for it was read then.
    done: Vec<Vec<u8>>,
    seen: bool,
    retired: bool,
    id: Option<FileId>,
}

impl Inode {
    fn expected(&self) -> Vec<Vec<u8>> {
        let mut lines = self.done.clone();
        lines.extend(complete_lines(&self.content, self.retired));
        lines
    }
}

/// The lines that must come of `content`, the slow way.
fn complete_lines(content: &[u8], and_the_last: bool) -> Vec<Vec<u8>> {
    let mut parts: Vec<&[u8]> = content.split(|&byte| byte == b'\n').collect();
    let last = parts.pop().unwrap_or_default();
    if and_the_last && !last.is_empty() {
        parts.push(last);
    }
    let short = parts.into_iter().filter(|line| line.len() <= MAX_LINE);
    short.map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec()).collect()
}

struct World {
    scene: Scene,
    patterns: Vec<&'static str>,
    inodes: Vec<Inode>,
    names: BTreeMap<usize, usize>,
    serial: u32,
    reloads: u32,
}

impl World {
    fn new(patterns: &[&'static str], buffer: usize) -> Self {
        let options = Options { max_line: MAX_LINE, file_budget: 1, ..Options::default() };
        let mut scene = Scene::with(options, &[]);
        scene.follower =
            Follower::with_buffer(Options { poll: Duration::ZERO, inotify: false, ..options }, buffer);
        fs::create_dir(scene.path("d")).unwrap();
        let mut world = Self {
            scene,
            patterns: patterns.to_vec(),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            serial: 0,
            reloads: 0,
        };
        world.reload();
        world
    }

    fn reload(&mut self) {
        // One number stays, so the same source; the others are new ones for the same files.
        let base = self.reloads * 10;
        let sources = self.patterns.iter().zip(0..).map(|(pattern, i)| Source {
            id: SourceId(if i == 0 { 0 } else { base + i }),
            pattern: self.scene.path(pattern).to_str().unwrap().to_owned(),
            from: From::Start,
        });
        self.scene.follower.set_sources(&sources.collect::<Vec<_>>());
        self.reloads += 1;
    }

    fn is_followed(&self, name: usize) -> bool {
        self.patterns.iter().any(|pattern| {
            let path = format!("/{}", NAMES[name]);
            glob::Pattern::parse(pattern).fits_path(path.as_ref())
        })
    }

    /// Whether a followed name leads to the file now.
    fn is_reached(&self, inode: usize) -> bool {
        self.names.iter().any(|(&name, &known)| known == inode && self.is_followed(name))
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Open(name) => {
                let handle = self.scene.append(NAMES[name], "");
                if let std::collections::btree_map::Entry::Vacant(free) = self.names.entry(name) {
                    free.insert(self.inodes.len());
                    let (content, done) = (Vec::new(), Vec::new());
                    self.inodes.push(Inode { handle, content, done, seen: false, retired: false, id: None });
                }
            }
            Action::Write(index, chunk) => {
                let mut open: Vec<_> = self.inodes.iter_mut().filter(|inode| !inode.retired).collect();
                if open.is_empty() {
                    return;
                }
                self.serial += 1;
                // A number makes every piece unlike any other, so no line can be taken for another.
                let text = match chunk {
                    Chunk::Line(text) => format!("{}{text}\n", self.serial),
                    Chunk::Part(text) => format!("{}{text}", self.serial),
                    Chunk::End => "\n".to_owned(),
                };
                let at = index.index(open.len());
                if matches!(chunk, Chunk::End) && open[at].content.is_empty() {
                    return;
                }
                open[at].handle.write_all(text.as_bytes()).unwrap();
                open[at].content.extend_from_slice(text.as_bytes());
            }
            Action::Rename(from, to) => {
                if from != to
                    && let Some(inode) = self.names.remove(&from)
                {
                    self.scene.rename(NAMES[from], NAMES[to]);
                    self.names.insert(to, inode);
                }
            }
            Action::Delete(name) => {
                if self.names.remove(&name).is_some() {
                    self.scene.remove(NAMES[name]);
                }
            }
            Action::Truncate(name) => {
                self.turn();
                if let Some(&inode) = self.names.get(&name) {
                    let inode = &mut self.inodes[inode];
                    inode.handle.set_len(0).unwrap();
                    let content = std::mem::take(&mut inode.content);
                    if inode.seen {
                        inode.done.extend(complete_lines(&content, false));
                    }
                }
            }
            Action::Turn => self.turn(),
            Action::Quiet => self.quiet(),
            Action::Reload => self.reload(),
        }
    }

    fn turn(&mut self) {
        let opened = self.scene.record.opened.len();
        self.scene.turn();
        for (id, path) in &self.scene.record.opened[opened..] {
            let name = NAMES.iter().position(|name| self.scene.path(name) == *path).unwrap();
            let inode = &mut self.inodes[self.names[&name]];
            assert_eq!(inode.id.replace(*id), None, "{} was opened twice", path.display());
        }
        for i in 0..self.inodes.len() {
            self.inodes[i].seen |= self.is_reached(i);
        }
    }

    fn quiet(&mut self) {
        for i in 0..self.inodes.len() {
            if self.is_reached(i) && !self.inodes[i].content.is_empty() {
                self.inodes[i].handle.write_all(b"\n").unwrap();
                self.inodes[i].content.push(b'\n');
            }
        }
        self.turn();
        self.scene.now = self.scene.now.saturating_add(Duration::from_secs(4000));
        self.turn();
        for i in 0..self.inodes.len() {
            if !self.inodes[i].seen || self.inodes[i].retired || self.is_reached(i) {
                continue;
            }
            self.inodes[i].retired = true;
            // Its writer goes too, so that its inode number may be given to another file.
            self.inodes[i].handle = File::open("/dev/null").unwrap();
            for name in self.names.clone().into_iter().filter(|&(_, known)| known == i).map(|(name, _)| name)
            {
                self.act(&Action::Delete(name));
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let mut came = BTreeMap::<FileId, Vec<Vec<u8>>>::new();
        for (id, line) in &self.scene.record.lines {
            came.entry(*id).or_default().push(line.clone());
        }
        for inode in &self.inodes {
            prop_assert_eq!(inode.seen, inode.id.is_some());
            let Some(id) = inode.id else { continue };
            let came = came.remove(&id).unwrap_or_default();
            let text = |lines: &[Vec<u8>]| {
                lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>()
            };
            prop_assert_eq!(text(&came), text(&inode.expected()));
        }
        prop_assert!(came.is_empty());
        let open = self.inodes.iter().filter(|inode| inode.seen && !inode.retired).count();
        prop_assert_eq!(self.scene.follower.status().files.len(), open);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn each_line_comes_once_and_in_order(
        patterns in prop::sample::subsequence(vec!["a.log", "*.log", "a.log*", "*/a.log", "c"], 1..=3),
        buffer in 1..80_usize,
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let mut world = World::new(&patterns, buffer);
        for action in &actions {
            world.act(action);
        }
        world.turn();
        world.check()?;
        world.quiet();
        world.check()?;
    }
}
