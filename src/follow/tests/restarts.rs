//! Random sequences of what log rotation does, with a follower that is killed at any moment.
//!
//! What a process was told counts up to some call or line, as if it had been killed there: what it was told later is
//! forgotten, its marks too, and the next process goes on from the marks that were kept.
//!
//! Promised: each complete line comes exactly once, and those of one generation of a log in their order; whether the
//! log was renamed or copied and emptied, its old files numbered on and compressed, once or many times, while the
//! follower looked or while none ran. Not promised, and so kept out of the sequences: lines of a file that was deleted
//! unread; those written between a copy's end and the emptying of the log, or to a log that was marked while it was
//! empty and then emptied once more; a line that was broken in two by the emptying; those of a log that is now renamed,
//! now copied and emptied; what a source that is new after a reload finds there and nobody had followed; in which order
//! files come of which one is still written to after the next one was begun.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LOGS: [&str; 3] = ["a.log", "b.log", "d/a.log"];

#[derive(Clone, Debug)]
enum Action {
    /// Whole lines.
    Write(usize, usize),
    /// A part of a line, or the end of one.
    Part(usize),
    /// Renames the log; its writer goes on until it reopens.
    Rename(usize),
    /// The writer begins the new file.
    Reopen(usize),
    /// Copies the log and empties it, with turns in between.
    CopyTruncate(usize, [Meanwhile; 3]),
    /// Compresses the rotated file with this number.
    Compress(usize, u32),
    Turn,
    /// Turns of which so much is kept, and then the process is dead.
    Crash(usize),
    Quiet,
    /// The same sources under other numbers.
    Reload,
}

/// What the follower does while a log is copied.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    Nothing,
    Turn,
    Crash(usize),
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    prop_oneof![
        2 => Just(Meanwhile::Nothing),
        2 => Just(Meanwhile::Turn),
        1 => (0..20_usize).prop_map(Meanwhile::Crash),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let log = 0..LOGS.len();
    prop_oneof![
        8 => (log.clone(), 1..5_usize).prop_map(|(log, n)| Action::Write(log, n)),
        3 => log.clone().prop_map(Action::Part),
        3 => log.clone().prop_map(Action::Rename),
        3 => log.clone().prop_map(Action::Reopen),
        3 => (log.clone(), prop::array::uniform3(meanwhile())).prop_map(|(log, m)| Action::CopyTruncate(log, m)),
        3 => (log, 1..4_u32).prop_map(|(log, n)| Action::Compress(log, n)),
        5 => Just(Action::Turn),
        4 => prop_oneof![0..12_usize, 0..60_usize].prop_map(Action::Crash),
        1 => Just(Action::Quiet),
        1 => Just(Action::Reload),
    ]
}

struct Log {
    writer: File,
    /// Counts the files that were begun under this name, or emptied.
    generation: u32,
    /// The name is free: the writer has not reopened yet.
    renamed: bool,
    /// What was written of a line without its end.
    part: String,
    /// The highest number of a rotated file.
    rotated: u32,
}

struct World {
    scene: Scene,
    logs: Vec<Log>,
    /// Complete lines, by log and generation.
    written: BTreeMap<(usize, u32), Vec<String>>,
    serial: u32,
    up: bool,
    reloads: u32,
    long_lines: bool,
    /// Which logs are copied and emptied; the others are renamed.
    copied: [bool; LOGS.len()],
}

impl World {
    fn new(patterns: &[&'static str], from: From, long_lines: bool, copied: [bool; 3]) -> Self {
        let options = Options { max_line: 400, file_budget: 1, ..Options::default() };
        let mut scene = Scene::with(options, &[]);
        fs::create_dir(scene.path("d")).unwrap();
        let sources: Vec<_> = patterns.iter().map(|&pattern| (pattern, from)).collect();
        scene.set_sources(&sources);
        // What appears from now on is read whole, whatever the sources say.
        scene.turn();
        let logs = LOGS.iter().map(|name| Log {
            writer: scene.append(name, ""),
            generation: 0,
            renamed: false,
            part: String::new(),
            rotated: 0,
        });
        let logs = logs.collect();
        let written = BTreeMap::new();
        let mut world = Self { scene, logs, written, serial: 0, up: true, reloads: 1, long_lines, copied };
        for log in 0..LOGS.len() {
            world.write(log);
        }
        world.turn();
        world
    }

    fn write(&mut self, log: usize) {
        self.part(log);
        if !self.logs[log].part.is_empty() {
            self.part(log);
        }
    }

    /// The first half of a line, or the second.
    fn part(&mut self, log: usize) {
        let known = &mut self.logs[log];
        if known.part.is_empty() {
            self.serial += 1;
            let long = if self.long_lines { "_".repeat(70) } else { String::new() };
            // A number makes every line unlike any other.
            known.part = format!("{} {log} {}{long}", self.serial, known.generation);
            known.writer.write_all(known.part.as_bytes()).unwrap();
        } else {
            known.writer.write_all(b" end\n").unwrap();
            let line = std::mem::take(&mut known.part) + " end";
            self.written.entry((log, known.generation)).or_default().push(line);
        }
    }

    fn end_line(&mut self, log: usize) {
        if !self.logs[log].part.is_empty() {
            self.part(log);
        }
    }

    fn name(log: usize, number: u32) -> String {
        format!("{}.{number}", LOGS[log])
    }

    /// Makes room for a new `.1`.
    fn shift(&mut self, log: usize) {
        for n in (1..=self.logs[log].rotated).rev() {
            for extension in ["", ".gz"] {
                let from = Self::name(log, n) + extension;
                if self.scene.path(&from).exists() {
                    self.scene.rename(&from, &(Self::name(log, n + 1) + extension));
                }
            }
        }
        self.logs[log].rotated += 1;
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Write(log, n) => (0..n).for_each(|_| self.write(log)),
            Action::Part(log) => self.part(log),
            Action::Rename(log) => {
                if !self.copied[log] && !self.logs[log].renamed {
                    self.shift(log);
                    self.scene.rename(LOGS[log], &Self::name(log, 1));
                    self.logs[log].renamed = true;
                }
            }
            Action::Reopen(log) => self.reopen(log),
            Action::CopyTruncate(log, meanwhile) => self.copy_and_truncate(log, meanwhile),
            Action::Compress(log, n) => {
                // Only what nobody writes to any more.
                let name = Self::name(log, n);
                let quiet = n > 1 || !self.logs[log].renamed;
                if quiet && self.scene.path(&name).exists() {
                    self.scene.gzip(&name);
                }
            }
            Action::Turn => self.turn(),
            Action::Crash(life) => self.crash(life),
            Action::Quiet => {
                for log in 0..LOGS.len() {
                    self.reopen(log);
                }
                self.turn();
                self.scene.later(4000);
                self.scene.later(10);
            }
            Action::Reload => {
                for source in self.scene.sources.iter_mut().skip(1) {
                    source.id.0 += 10 * self.reloads;
                }
                self.reloads += 1;
                if self.up {
                    // What the new source finds first is not followed yet, and begun as it says.
                    self.turn();
                    let sources = self.scene.sources.clone();
                    self.scene.follower.set_sources(&sources);
                    self.turn();
                }
            }
        }
    }

    fn reopen(&mut self, log: usize) {
        if self.logs[log].renamed {
            self.end_line(log);
            self.logs[log].writer = self.scene.append(LOGS[log], "");
            self.logs[log].renamed = false;
            self.logs[log].generation += 1;
            // Before it is looked at, so that it is never known as an empty file.
            self.write(log);
        }
    }

    fn copy_and_truncate(&mut self, log: usize, meanwhile: [Meanwhile; 3]) {
        if !self.copied[log] {
            return;
        }
        self.end_line(log);
        self.shift(log);
        let content = fs::read(self.scene.path(LOGS[log])).unwrap();
        let mut copy = self.scene.append(&Self::name(log, 1), "");
        let mut step = |world: &mut Self, meanwhile: Meanwhile, bytes: &[u8]| {
            match meanwhile {
                Meanwhile::Nothing => {}
                Meanwhile::Turn => world.turn(),
                Meanwhile::Crash(life) => world.crash(life),
            }
            copy.write_all(bytes).unwrap();
        };
        let middle = content.len() / 2;
        step(self, meanwhile[0], &content[..middle]);
        step(self, meanwhile[1], &content[middle..]);
        step(self, meanwhile[2], b"");
        self.logs[log].writer.set_len(0).unwrap();
        self.logs[log].generation += 1;
        self.write(log);
    }

    fn start(&mut self) {
        if !self.up {
            self.scene.start();
            self.up = true;
        }
    }

    fn turn(&mut self) {
        self.start();
        self.scene.turn();
    }

    fn crash(&mut self, life: usize) {
        self.start();
        self.scene.record.life = Some(life);
        self.scene.turn();
        self.scene.record.life = None;
        self.up = false;
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let mut came = BTreeMap::<(usize, u32), Vec<String>>::new();
        for (_, line) in &self.scene.record.lines {
            let line = String::from_utf8_lossy(line).into_owned();
            let mut words = line.split([' ', '_']).skip(1);
            let log = words.next().unwrap().parse().unwrap();
            let generation = words.next().unwrap().parse().unwrap();
            came.entry((log, generation)).or_default().push(line);
        }
        prop_assert_eq!(&came, &self.written, "{:#?}", self.scene.record.events);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_line_is_lost_or_repeated_over_restarts(
        patterns in prop::sample::select(vec![
            &["a.log", "b.log", "d/a.log"][..],
            &["*.log", "*/*.log"],
            &["?.log*", "d/*"],
            &["a.log", "*.log*", "d/a.log"],
        ]),
        from_start in any::<bool>(),
        long_lines in any::<bool>(),
        copied in any::<[bool; 3]>(),
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let from = if from_start { From::Start } else { From::End };
        let mut world = World::new(patterns, from, long_lines, copied);
        for action in &actions {
            world.act(action);
        }
        world.act(&Action::Quiet);
        world.check()?;
        // What is over is forgotten, unless a glob still names it.
        let open = world.scene.follower.status().files.len();
        prop_assert_eq!(world.scene.record.ledger.marks.len(), open);
    }
}
