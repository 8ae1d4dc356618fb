//! Programs: loaded, called by rules, found again. These tests need root of the machine: a user namespace may not load
//! programs.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nft::bpf::{Asm, Cond, LoadError, Map, MapKind, Program, Reg, Size, helper};
use nft::{Batch, Chain, ChainType, Connection, Family, Hook, Rule, Table, priority};

use crate::namespace::{enter, nft};

/// Matches packets whose destination port is in the map, and counts them there.
fn ports_in(map: &Map) -> Program {
    let mut asm = Asm::new();
    let [entry, count, no] = [asm.label(), asm.label(), asm.label()];
    asm.function(entry, "entry");
    asm.mov(Reg::R2, 22);
    asm.mov(Reg::R3, Reg::STACK);
    asm.add(Reg::R3, -8);
    asm.mov(Reg::R4, 2);
    asm.call(helper::SKB_LOAD_BYTES);
    asm.jump_if(Reg::R0, Cond::Ne, 0, no);
    asm.map(Reg::R1, map);
    asm.mov(Reg::R2, Reg::STACK);
    asm.add(Reg::R2, -8);
    asm.call(helper::MAP_LOOKUP_ELEM);
    asm.jump_if(Reg::R0, Cond::Eq, 0, no);
    asm.mov(Reg::R1, Reg::R0);
    asm.call_function(count);
    asm.mov(Reg::R0, 1);
    asm.exit();
    asm.place(no);
    asm.mov(Reg::R0, 0);
    asm.exit();
    asm.function(count, "count");
    asm.mov(Reg::R2, 1);
    asm.atomic_add(Reg::R1, 0, Reg::R2);
    asm.mov(Reg::R0, 0);
    asm.exit();
    match Program::load("ports", &asm) {
        Ok(program) => program,
        Err(e) => panic!("{e}\n(this test loads a BPF program: run it as root)"),
    }
}

fn map() -> Map {
    Map::new("ports", MapKind::Hash, 2, 8, 1000).expect("bpf(2), as root")
}

fn counted(map: &Map, port: u16) -> u64 {
    u64::from_ne_bytes(map.get(&port.to_be_bytes()).unwrap().unwrap().try_into().unwrap())
}

fn answers(to: &TcpListener) -> bool {
    TcpStream::connect_timeout(&to.local_addr().unwrap(), Duration::from_millis(300)).is_ok()
}

#[test]
fn a_rule_keeps_its_program_alive() {
    enter(async {
        let mut conn = Connection::open().unwrap();
        assert!(
            std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success()
        );
        let table = Table::new(Family::Inet, "stockade");
        let input = Chain::new(&table, "in").base(ChainType::Filter, Hook::Input, priority::FILTER);
        let map = map();
        let program = ports_in(&map);
        let id = program.id().unwrap();
        let mut batch = Batch::new();
        batch.add(&table).add(&input).add(Rule::new(&input).meta_l4proto(6).expr(program.expr()).drop());
        conn.commit(&batch).await.unwrap();
        let [open, closed] =
            [TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0")].map(|l| l.unwrap());
        let port = closed.local_addr().unwrap().port();
        assert!(answers(&open) && answers(&closed), "the map is empty");
        map.insert(&port.to_be_bytes(), &0u64.to_ne_bytes()).unwrap();
        assert!(answers(&open) && !answers(&closed));
        let so_far = counted(&map, port);
        assert!(so_far > 0);
        // The rule is all that holds the program now.
        drop(program);
        assert!(!answers(&closed));
        assert!(counted(&map, port) > so_far);
        assert!(nft(&["list", "ruleset"]).contains("bpf"), "nft lists it, though it cannot say what it does");
        // Found by its number, it can be put into another rule.
        let found = Program::by_id(id).unwrap();
        assert_eq!(found.id().unwrap(), id);
        let mut batch = Batch::new();
        batch.flush(&input).add(Rule::new(&input).expr(found.expr()).drop());
        conn.commit(&batch).await.unwrap();
        assert!(!answers(&closed) && answers(&open));
        assert!(map.remove(&port.to_be_bytes()).unwrap());
        assert!(!map.remove(&port.to_be_bytes()).unwrap(), "it is gone already");
        assert!(answers(&closed));
        let mut batch = Batch::new();
        batch.delete(&table);
        conn.commit(&batch).await.unwrap();
        drop(found);
        // The kernel lets go of a rule's program after a grace period.
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            Program::by_id(id).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
        });
        assert!(gone, "nothing holds the program any more");
    });
}

#[test]
fn a_map_says_when_it_is_full_and_how_far_it_came() {
    let map = map();
    let ports: Vec<u8> = (0..1500u16).flat_map(u16::to_be_bytes).collect();
    let (done, error) = map.insert(&ports, &vec![0; 1500 * 8]).unwrap_err();
    assert_eq!((done, error.raw_os_error()), (1000, Some(libc::E2BIG)));
    let mut listed = Vec::new();
    map.for_each(|key, _| listed.push(u16::from_be_bytes(key.try_into().unwrap()))).unwrap();
    listed.sort_unstable();
    assert_eq!(listed, (0..1000).collect::<Vec<_>>());
}

#[test]
fn the_longest_prefix_is_found() {
    let map = Map::new("nets", MapKind::Prefix, 8, 8, 100).expect("bpf(2), as root");
    let key = |length: u32, address: [u8; 4]| [length.to_ne_bytes(), address].concat();
    map.insert(&key(8, [10, 0, 0, 0]), &1u64.to_ne_bytes()).unwrap();
    map.insert(&key(24, [10, 0, 7, 0]), &2u64.to_ne_bytes()).unwrap();
    let of = |address| map.get(&key(32, address)).unwrap().map(|v| v[0]);
    assert_eq!([of([10, 0, 7, 9]), of([10, 0, 8, 9]), of([11, 0, 0, 1])], [Some(2), Some(1), None]);
    let mut n = 0;
    map.for_each(|_, _| n += 1).unwrap();
    assert_eq!(n, 2);
}

#[test]
fn the_verifier_tells_why() {
    let mut asm = Asm::new();
    asm.load(Size::D, Reg::R0, Reg::R2, 0);
    asm.exit();
    let Err(LoadError::Verifier { log, .. }) = Program::load("wrong", &asm) else {
        panic!("an unwritten register is read: the verifier must not take that")
    };
    assert!(log.contains("R2 !read_ok"), "{log}");
}
