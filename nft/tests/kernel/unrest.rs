//! Others commit meanwhile, signals arrive, and what nobody expects is in a set.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nft::{Batch, Connection, Element, Family, Key, KeyType, ListError, Set, Table};

use crate::namespace::{enter, nft, nft_script};

fn table() -> Table {
    Table::new(Family::Inet, "t")
}

fn set() -> Set {
    Set::new(&table(), "s", KeyType::Ipv4Addr).timeout()
}

fn nth(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + n)
}

async fn with_elements(count: u32) -> Connection {
    let mut conn = Connection::open().unwrap();
    let mut batch = Batch::new();
    batch.add(table()).add(set());
    batch.add_elements(&set(), (0..count).map(|n| Element::new(nth(n)).timeout(Duration::from_secs(3600))));
    conn.commit(&batch).await.unwrap();
    conn
}

fn keys(elements: &[Element]) -> Vec<Key> {
    elements.iter().map(|e| e.key.clone()).collect()
}

/// Somebody who changes another table, over and over, with this pause, until dropped.
struct Others {
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU32>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Others {
    fn start(pause: Duration) -> Self {
        let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&commits));
        // A thread begins in the network namespace of the one that starts it.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut conn = Connection::open().unwrap();
                let other = Table::new(Family::Ip, "other");
                while !stopped.load(Ordering::Relaxed) {
                    let mut batch = Batch::new();
                    batch.add(&other).delete(&other);
                    conn.commit(&batch).await.unwrap();
                    counted.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                }
            });
        });
        let others = Self { stop, commits, thread: Some(thread) };
        others.until(1);
        others
    }

    /// Waits until they have committed so often.
    fn until(&self, commits: u32) {
        while self.commits.load(Ordering::Relaxed) < commits {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// The kernel breaks a listing off (`NLM_F_DUMP_INTR`) when anybody commits anything meanwhile: it is begun anew until it
/// is of one piece, and never passed on in part.
#[test]
fn a_listing_that_others_interrupt_is_whole_or_an_error() {
    enter(async {
        let mut conn = with_elements(20_000).await;
        let mut wanted: Vec<Key> = (0..20_000).map(|n| nth(n).into()).collect();
        wanted.sort();
        assert_eq!(keys(&conn.elements(&set()).await.unwrap()), wanted);
        let (mut whole, mut interrupted) = (0, 0);
        for pause in [Duration::from_millis(100), Duration::from_millis(1)] {
            let others = Others::start(pause);
            for _ in 0..5 {
                let before = others.commits.load(Ordering::Relaxed);
                match conn.elements(&set()).await {
                    Ok(elements) => {
                        assert_eq!(keys(&elements), wanted);
                        whole += 1;
                    }
                    Err(ListError::Interrupted { .. }) => interrupted += 1,
                    Err(e) => panic!("{e}"),
                }
                others.until(before + 1);
            }
        }
        println!("{whole} whole, {interrupted} given up");
        assert!(whole > 0, "{interrupted} listings were given up");
        // A short listing comes through anyway.
        let _others = Others::start(Duration::ZERO);
        assert_eq!(conn.sets(&table()).await.unwrap().len(), 1);
    });
}

/// A comparison that was overtaken is refused, and the next one, on the new generation, is taken.
#[test]
fn a_batch_bound_to_a_generation_is_tried_again_until_it_is_the_latest() {
    enter(async {
        let mut conn = with_elements(1).await;
        let others = Others::start(Duration::from_millis(2));
        let (mut stale, mut done) = (0, 0);
        while stale == 0 || done == 0 {
            let mut batch = Batch::new();
            batch.only_on(conn.generation().await.unwrap());
            batch.add_elements(&set(), [nth(7)]);
            // Every other time somebody comes between for sure.
            if done > stale {
                others.until(others.commits.load(Ordering::Relaxed) + 2);
            }
            match conn.commit(&batch).await {
                Ok(()) => done += 1,
                Err(e) if e.is_stale() => stale += 1,
                Err(e) => panic!("{e}"),
            }
        }
    });
}

extern "C" fn nothing(_: libc::c_int) {}

/// A signal for this thread every 50 µs, with a handler that does not have system calls restarted.
fn storm_of_signals() -> libc::timer_t {
    // SAFETY: all structures are zeroed (valid for plain C structures) and live through the calls, which copy them; the
    // handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int) = nothing;
        action.sa_sigaction = handler as libc::sighandler_t;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGUSR1;
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer: libc::timer_t = std::mem::zeroed();
        assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer), 0);
        let every = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
        let times = libc::itimerspec { it_interval: every, it_value: every };
        assert_eq!(libc::timer_settime(timer, 0, &raw const times, std::ptr::null_mut()), 0);
        timer
    }
}

#[test]
fn signals_disturb_neither_batches_nor_listings() {
    enter(async {
        let mut conn = with_elements(0).await;
        let timer = storm_of_signals();
        for round in 0..20 {
            let mut batch = Batch::new();
            batch.add_elements(&set(), (0..5000).map(|n| nth(round * 5000 + n)));
            conn.commit(&batch).await.unwrap();
            assert_eq!(conn.elements(&set()).await.unwrap().len() as u32, (round + 1) * 5000);
        }
        // SAFETY: the timer was made above and is deleted once.
        assert_eq!(unsafe { libc::timer_delete(timer) }, 0);
    });
}

/// It bans everybody, so who compares what is there with what should be must be told of it.
#[test]
fn the_catch_all_element_is_listed() {
    enter(async {
        let mut conn = with_elements(2).await;
        let nets = Set::new(&Table::new(Family::Inet, "u"), "n", KeyType::Ipv4Addr).interval();
        nft_script(
            "table inet u { set n { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, * } }; }",
        );
        nft(&["add element inet t s { * timeout 1h comment \"all\" }"]);
        let listed = conn.elements(&set()).await.unwrap();
        assert_eq!(listed.len(), 3);
        let all = listed.iter().find(|e| e.key == Key::catch_all()).unwrap();
        assert_eq!(all.timeout, Some(Duration::from_secs(3600)));
        assert!(all.to_string().starts_with("* timeout 1h"), "{all}");
        let mut listed = keys(&conn.elements(&nets).await.unwrap());
        listed.sort();
        assert_eq!(listed, ["10.0.0.0/8".parse::<ipnet::IpNet>().unwrap().into(), Key::catch_all()]);
    });
}

#[test]
fn parts_of_a_batch_come_to_the_same() {
    enter(async {
        let mut conn = Connection::open().unwrap();
        let mut batch = Batch::new();
        batch.add(table()).add(set()).flush(set());
        batch.add_elements(&set(), (0..1000).map(nth));
        batch.delete_elements(&set(), (0..500).map(nth));
        let parts = batch.parts(300);
        assert_eq!(parts.iter().map(Batch::element_count).sum::<usize>(), 1500);
        assert!(parts.iter().all(|part| part.element_count() <= 300));
        for part in &parts {
            conn.commit(part).await.unwrap();
        }
        let listed = keys(&conn.elements(&set()).await.unwrap());
        assert_eq!(listed, (500..1000).map(|n| Key::from(nth(n))).collect::<Vec<_>>());
        // As many elements as there may be, and none too few: nothing is split without need.
        assert_eq!(batch.parts(1500), [batch.clone()]);
        assert_eq!(batch.parts(0).len(), 1500);
    });
}
