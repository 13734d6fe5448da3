use api::Version;
use api::fleet::{self, Split, WeightedRelease};

use super::*;
use tokio::sync::mpsc::UnboundedSender;

use crate::count::{JudgedSums, Ledger};
use crate::counted::allocations;
use crate::snapshot::{Compiler, Snapshot, fixture};

const STAGE: &str = "hello/staging";

/// A worker's guards, and what the admin runtime hears of them.
struct Around {
    compiler: Compiler,
    version: Version,
    watches: Watches,
    /// Of another worker's.
    outlets: (std::sync::mpsc::Sender<crate::count::Opened>, UnboundedSender<Tripped>),
    ledger: Ledger,
    tripped: UnboundedReceiver<Tripped>,
}

impl Around {
    fn new() -> Self {
        let (ledger, opened) = Ledger::new();
        let (sender, tripped) = tokio::sync::mpsc::unbounded_channel();
        let watches = Watches::new(opened.clone(), sender.clone());
        let outlets = (opened, sender);
        Self { compiler: Compiler::default(), version: Version::first_of(1), watches, outlets, ledger, tripped }
    }

    /// The next snapshot: weights of r1 and r2, and the number of the rollout of r2 if there is one.
    fn snapshot(&mut self, weights: [u32; 2], rollout: Option<u64>) -> Arc<Snapshot> {
        self.of(weights, rollout.map(|rollout| (rollout, 0, 1_000)))
    }

    /// The next snapshot: weights of r1 and r2, and of the rollout its number, epoch, and what is slow.
    fn of(&mut self, weights: [u32; 2], rollout: Option<(u64, u32, u64)>) -> Arc<Snapshot> {
        let tripwire = Some(fleet::Tripwire { failures: 3, among: 10 });
        let guard = |(rollout, epoch, slow_us)| fleet::Guard {
            rollout,
            canary: 2,
            stable: 1,
            slow_us,
            epoch,
            failure_header: "x-failed".into(),
            tripwire,
        };
        let weighted = [1, 2].into_iter().zip(weights);
        let weights = weighted.map(|(release, weight)| WeightedRelease { release, weight }).collect();
        let split = Split { weights, guard: rollout.map(guard), ..Split::default() };
        self.version = self.version.next();
        let resources = [
            fixture::stage(STAGE, &[1, 2]),
            fixture::resource("split", STAGE, &split),
            fixture::endpoints(STAGE, 1, &["127.0.0.1:81"]),
            fixture::endpoints(STAGE, 2, &["127.0.0.1:82"]),
        ];
        self.compiler.apply(fixture::full(self.version, &resources)).expect("good resources").snapshot
    }

    /// A request that was dealt out to a release; where it goes.
    fn ask(&self, snapshot: &Snapshot, release: u32, failed: bool) -> u32 {
        self.ask_by(None, snapshot, release, failed)
    }

    /// One of a sticky caller with this place.
    fn ask_by(&self, place: Option<u64>, snapshot: &Snapshot, release: u32, failed: bool) -> u32 {
        let stage = snapshot.stage_named(STAGE).expect("a stage");
        let (backend, judging) = self.watches.admit(stage, stage.backend(release).expect("a release"), place, || false);
        if let Some(judging) = judging {
            judging.answered(10);
            if failed {
                judging.failed();
            }
            judging.over();
        }
        backend.release
    }

    /// The canary fails so many times, one request in thirty; how often it was asked.
    fn fails(&self, snapshot: &Snapshot, times: u64) -> u64 {
        let ask = |_: &u64| {
            (0..30).for_each(|_| assert_eq!(self.ask(snapshot, 1, false), 1));
            self.ask(snapshot, 2, true) == 2
        };
        (0..times).filter(ask).count() as u64
    }

    /// A request that begins now.
    fn begin(&self, snapshot: &Snapshot, release: u32) -> Judging {
        begin(&self.watches, snapshot, release)
    }

    /// What is counted by epoch: requests, failures, slow ones.
    fn epochs(&mut self, release: u32, rollout: u64) -> Vec<(u32, u64, u64, u64)> {
        let Some((_, _, entry)) = self.ledger.fold().find(|(_, number, _)| *number == release) else {
            return Vec::new();
        };
        let one = |(epoch, sums, _): (Epoch, JudgedSums, api::Histogram)| {
            (epoch.number, sums.requests, sums.failed, sums.slow)
        };
        entry.epochs(rollout).map(one).collect()
    }

    fn judged(&mut self, release: u32, rollout: u64) -> Option<(u64, u64, u64)> {
        let mut folded = self.ledger.fold().filter(|(_, number, _)| *number == release);
        let sums = folded.next()?.2.judged(rollout)?;
        Some((sums.requests, sums.failed, sums.slow))
    }
}

fn begin(watches: &Watches, snapshot: &Snapshot, release: u32) -> Judging {
    let stage = snapshot.stage_named(STAGE).expect("a stage");
    let backend = stage.backend(release).expect("a release");
    watches.admit(stage, backend, None, || false).1.expect("judged")
}

#[test]
fn rollout_a_worker_stops_the_canary_at_once_and_tells_it_once() {
    let mut around = Around::new();
    let snapshot = around.snapshot([9, 1], Some(7));
    assert_eq!(around.fails(&snapshot, 3), 3);
    assert_eq!(around.ask(&snapshot, 2, true), 1, "it is stopped");
    let told = around.tripped.try_recv().expect("told");
    assert_eq!((&*told.stage, told.guard.rollout, told.share), (STAGE, 7, Share { failures: 3, among: 3 }));
    assert!(around.tripped.try_recv().is_err(), "once");
    // Weights may change.
    let snapshot = around.snapshot([5, 5], Some(7));
    assert_eq!(around.ask(&snapshot, 2, false), 1);
    // Whoever gives it everything means it.
    let snapshot = around.snapshot([0, 5], Some(7));
    assert_eq!(around.ask(&snapshot, 2, false), 2);
    let snapshot = around.snapshot([5, 5], Some(8));
    assert_eq!(around.ask(&snapshot, 2, false), 2, "another rollout");
    assert_eq!((around.judged(2, 7), around.judged(2, 8)), (Some((4, 3, 0)), Some((1, 0, 0))));
}

#[test]
fn rollout_a_canary_that_has_all_the_weight_is_not_stopped() {
    let mut around = Around::new();
    let snapshot = around.snapshot([0, 1], Some(7));
    assert_eq!(around.fails(&snapshot, 10), 10);
    assert!(around.tripped.try_recv().is_err());
    // As soon as somebody else can serve it is looked at again.
    let snapshot = around.snapshot([1, 1], Some(7));
    assert_eq!(around.ask(&snapshot, 2, true), 2);
    assert_eq!(around.ask(&snapshot, 2, true), 1);
}

#[tokio::test]
async fn rollout_what_one_worker_stops_is_stopped_on_all() {
    let mut around = Around::new();
    let (sender, tripped) = tokio::sync::mpsc::unbounded_channel();
    let others = Watches::new(around.outlets.0.clone(), sender.clone());
    let snapshot = around.snapshot([9, 1], Some(7));
    assert_eq!(around.fails(&snapshot, 3), 3);
    let stage = snapshot.stage_named(STAGE).expect("a stage");
    let canary = stage.backend(2).expect("a release");
    assert_eq!(others.admit(stage, canary, None, || true).0.release, 2, "nobody told it yet");
    sender.send(around.tripped.try_recv().expect("told")).expect("somebody listens");
    // Another worker may trip as well.
    let guard = stage.guard.clone().expect("a guard");
    sender.send(Tripped { stage: STAGE.into(), guard, share: Share { failures: 9, among: 9 } }).expect("it listens");
    let told = Arc::<Notify>::default();
    tokio::select! {
        biased;
        () = listen(tripped, || 1_234, told.clone()) => panic!("there is somebody to listen to"),
        () = told.notified() => {}
    }
    let trip = stage.guard.as_ref().and_then(|guard| guard.trip.get()).cloned();
    assert_eq!(trip, Some(Trip { failures: 3, among: 3, at_ms: 1_234 }), "the first one");
    assert_eq!(others.admit(stage, canary, None, || true).0.release, 1);
    let snapshot = around.snapshot([5, 5], Some(7));
    let stage = snapshot.stage_named(STAGE).expect("a stage");
    assert_eq!(others.admit(stage, stage.backend(2).expect("a release"), None, || true).0.release, 1, "weights change");
}

#[test]
fn rollout_guards_that_have_ended_are_forgotten() {
    let mut around = Around::new();
    let mut snapshot = around.snapshot([9, 1], None);
    for rollout in 1..200 {
        snapshot = around.snapshot([9, 1], Some(rollout));
        for release in [1, 2] {
            around.ask(&snapshot, release, false);
        }
        around.watches.keep(&snapshot);
        around.ledger.fold().for_each(drop);
        around.ledger.forget_judged(|_, number| number != rollout);
        assert_eq!((around.judged(2, rollout - 1), around.judged(2, rollout)), (None, Some((1, 0, 0))));
    }
    let watch = around.watches.known();
    assert_eq!(watch.len(), 1);
    let watch = watch.into_iter().next().expect("a guard");
    around.watches.keep(&snapshot);
    assert!(watch.upgrade().is_some(), "it is under way");
    let after = around.snapshot([9, 1], None);
    around.watches.keep(&after);
    assert!(watch.upgrade().is_none());
    around.ledger.fold().for_each(drop);
    around.ledger.forget_judged(|_, _| true);
    assert_eq!(around.judged(2, 199), None);
}

#[test]
fn rollout_counting_allocates_nothing_after_the_first_result() {
    let mut around = Around::new();
    let snapshot = around.snapshot([9, 1], Some(7));
    let all = |count: u64| (0..count).for_each(|n| _ = around.ask(&snapshot, 1 + (n % 2) as u32, n % 20 == 1));
    all(2);
    let before = allocations();
    all(2_000);
    assert_eq!(allocations(), before);
    assert_eq!(around.judged(2, 7), Some((1_001, 101, 0)));
}

#[test]
fn rollout_requests_count_by_how_they_ended() {
    let mut around = Around::new();
    let snapshot = around.snapshot([9, 1], Some(7));
    let stage = snapshot.stage_named(STAGE).expect("a stage");
    let ended = |act: &dyn Fn(&Judging)| act(&begin(&around.watches, &snapshot, 1));
    // Nobody answered and nobody is to blame; or the client left within the answer.
    ended(&|_| {});
    ended(&|one| one.answered(5));
    // Tried again, and answered.
    ended(&|one| {
        one.tries_again();
        one.answered(5);
        one.failed();
        one.over();
    });
    let before = around.ledger.fold().count();
    assert_eq!(before, 0, "nothing counts");
    ended(&|one| {
        one.answered(1_000);
        one.over();
        one.over();
    });
    ended(&|one| {
        one.answered(1_001);
        one.over();
        one.failed();
    });
    // Answered with a failure: its client need not stay.
    ended(&|one| {
        one.answered(5);
        one.failed();
    });
    // Tried everywhere, and nobody answered.
    ended(&|one| {
        one.tries_again();
        one.failed();
    });
    for value in ["1", "", "true", "0", " false "] {
        ended(&|one| {
            one.answered(5);
            one.look([("x-other", &b"1"[..]), ("x-failed", value.as_bytes())].into_iter());
            one.over();
        });
    }
    assert_eq!(around.judged(1, 7), Some((9, 5, 1)));
    assert!(
        around.watches.admit(stage, stage.backend(1).expect("a release"), None, || true).1.is_none(),
        "a health check"
    );
}

#[test]
fn rollout_requests_count_under_the_epoch_in_which_they_began_whenever_they_end() {
    let mut around = Around::new();
    let first = around.of([9, 1], Some((7, 1, 1_000)));
    let (one, other) = (around.begin(&first, 2), around.begin(&first, 2));
    around.ask(&first, 1, false);
    // Slow is what lasts longer, from here on.
    let second = around.of([5, 5], Some((7, 2, 3_000)));
    let next = around.begin(&second, 2);
    for judging in [one, next] {
        judging.answered(2_000);
        judging.over();
    }
    assert_eq!(around.epochs(2, 7), [(1, 1, 0, 1), (2, 1, 0, 0)]);
    assert_eq!(around.epochs(1, 7), [(1, 1, 0, 0)], "nothing ended under the second");
    // A change of the stage that leaves the epoch as it is goes on counting.
    let same = around.of([5, 5], Some((7, 2, 3_000)));
    around.ask(&same, 2, false);
    let third = around.of([1, 9], Some((7, 3, 3_000)));
    around.ask(&third, 2, false);
    drop((other, around.begin(&third, 2)));
    around.ledger.fold().for_each(drop);
    around.ledger.forget_judged(|_, rollout| rollout != 7);
    assert_eq!(around.epochs(2, 7), [(1, 1, 0, 1), (2, 2, 0, 0), (3, 1, 0, 0)], "nothing that was told is lost");
    assert_eq!(around.judged(2, 7), Some((4, 0, 1)));
    // It cannot go back; if it does, it is one more change.
    let back = around.of([1, 9], Some((7, 2, 1)));
    around.ask(&back, 2, false);
    assert_eq!(around.epochs(2, 7), [(1, 1, 0, 1), (2, 3, 0, 1), (3, 1, 0, 0)]);
    let other = around.of([1, 9], Some((8, 2, 1)));
    around.ask(&other, 2, false);
    assert_eq!(around.epochs(2, 8), [(2, 1, 0, 1)]);
}

#[test]
fn rollout_what_the_tripwire_has_seen_goes_on_through_epochs() {
    let mut around = Around::new();
    let first = around.of([9, 1], Some((7, 1, 1_000)));
    assert_eq!(around.fails(&first, 2), 2);
    let late = around.begin(&first, 2);
    let second = around.of([5, 5], Some((7, 2, 1_000)));
    (0..40).for_each(|_| assert_eq!(around.ask(&second, 1, false), 1));
    assert!(around.tripped.try_recv().is_err(), "two of three");
    // One that began before ends with the third failure: it counts there, and stops what is dealt out now.
    late.failed();
    drop(late);
    assert_eq!(around.ask(&second, 2, true), 1, "it is stopped");
    let told = around.tripped.try_recv().expect("told");
    assert_eq!((told.guard.rollout, told.guard.epoch, told.share), (7, 2, Share { failures: 3, among: 3 }));
    assert_eq!(around.epochs(2, 7), [(1, 3, 3, 0)]);
    let third = around.of([1, 9], Some((7, 3, 1_000)));
    assert_eq!(around.ask(&third, 2, true), 1, "and stays so");
    assert!(around.tripped.try_recv().is_err(), "told once");
    let other = around.of([1, 9], Some((8, 4, 1_000)));
    assert_eq!(around.ask(&other, 2, true), 2, "another rollout");
}

#[test]
fn hostile_many_epochs_leave_little_behind() {
    let mut around = Around::new();
    let (mut held, mut most) = (Vec::new(), 0);
    for epoch in 1..=10_000 {
        let snapshot = around.of([9, 1], Some((7, epoch, 1_000)));
        around.ask(&snapshot, 2, false);
        around.ask(&snapshot, 1, false);
        // Some requests last, and some end much later.
        held.push(around.begin(&snapshot, 2));
        if held.len() > 100 {
            held.remove(0).over();
        }
        // Reports come at times of their own.
        if epoch % 7 == 0 {
            around.ledger.fold().for_each(drop);
            around.ledger.forget_judged(|_, rollout| rollout != 7);
            let (_, _, entry) = around.ledger.fold().next().expect("counts");
            most = most.max(entry.kept());
        }
    }
    assert_eq!((most, around.watches.known().len()), (8, 1));
    let newest: Vec<u32> = around.epochs(2, 7).iter().map(|one| one.0).collect();
    assert_eq!(newest, (9_993..=10_000).collect::<Vec<_>>());
    let (requests, ..) = around.judged(2, 7).expect("sums");
    assert!((10_000..=20_000).contains(&requests), "{requests}: those of each epoch, as far as they had ended");
    drop(held);
    let after = around.of([9, 1], None);
    around.watches.keep(&after);
    around.ledger.fold().for_each(drop);
    around.ledger.forget_judged(|_, _| true);
    assert_eq!((around.epochs(2, 7), around.judged(2, 7)), (Vec::new(), None));
}

#[test]
fn rollout_an_epoch_costs_its_allocations_once() {
    let mut around = Around::new();
    let ask = |around: &Around, snapshot: &Snapshot| {
        let before = allocations();
        (0..100u64).for_each(|n| _ = around.ask_by(Some(n), snapshot, 1 + (n % 2) as u32, n % 20 == 1));
        allocations() - before
    };
    let first = around.of([9, 1], Some((7, 1, 1_000)));
    ask(&around, &first);
    assert_eq!(ask(&around, &first), 0);
    let second = around.of([9, 1], Some((7, 2, 1_000)));
    assert!(ask(&around, &second) > 0);
    assert_eq!(ask(&around, &second), 0);
}

#[test]
fn rollout_callers_that_leave_before_an_answer_have_met_a_slow_one_if_they_waited_that_long() {
    let mut around = Around::new();
    let snapshot = around.snapshot([9, 1], Some(7));
    let leaves = |us: u64, act: &dyn Fn(&Judging)| {
        let judging = begin(&around.watches, &snapshot, 2);
        act(&judging);
        judging.left(|| us);
        judging.left(|| us);
    };
    leaves(1_000, &|_| {});
    // A limit of ours, an answer that had begun, and one that came from elsewhere.
    leaves(9_000, &|one| one.says_nothing());
    leaves(9_000, &|one| one.answered(5_000));
    leaves(9_000, &Judging::tries_again);
    assert_eq!(around.ledger.fold().count(), 0, "nothing counts");
    leaves(1_001, &|_| {});
    leaves(9_000, &|_| {});
    // What had ended, or failed, counts as that.
    leaves(9_000, &|one| {
        one.answered(10);
        one.over();
    });
    leaves(9_000, &|one| {
        one.failed();
        one.says_nothing();
    });
    assert_eq!(around.judged(2, 7), Some((4, 1, 2)));
    let latencies: u64 = around.ledger.fold().flat_map(|(_, _, entry)| entry.epochs(7)).map(|one| one.2.total()).sum();
    assert_eq!(latencies, 1, "nobody knows how long it would have taken");
    // Nothing is slow, and no clock is asked.
    let never = around.of([9, 1], Some((8, 0, 0)));
    around.begin(&never, 2).left(|| panic!("asked"));
    assert_eq!(around.judged(2, 8), None);
}

#[test]
fn rollout_callers_that_leave_say_nothing_to_the_tripwire() {
    let mut around = Around::new();
    let snapshot = around.snapshot([9, 1], Some(7));
    assert_eq!(around.fails(&snapshot, 2), 2);
    // Not that the canary is well, nor that it is not.
    (0..30).for_each(|_| around.begin(&snapshot, 2).left(|| 9_000));
    (0..30).for_each(|_| around.begin(&snapshot, 1).left(|| 9_000));
    assert_eq!(around.fails(&snapshot, 1), 1);
    let told = around.tripped.try_recv().expect("told");
    assert_eq!(told.share, Share { failures: 3, among: 3 });
}

#[test]
fn rollout_one_sticky_caller_does_not_stop_the_canary_for_all() {
    let mut around = Around::new();
    let snapshot = around.snapshot([9, 1], Some(7));
    let fails = |around: &Around, place: u64| {
        (0..30).for_each(|_| assert_eq!(around.ask_by(Some(u64::MAX), &snapshot, 1, false), 1));
        around.ask_by(Some(place), &snapshot, 2, true)
    };
    // Two of them, as often as they like; each has counted for the judge.
    (0..20).for_each(|n| assert_eq!(fails(&around, 1 + n % 2), 2));
    assert_eq!(around.tripped.try_recv().map(|told| told.share).ok(), None);
    // A third, who is well otherwise, is one more.
    assert_eq!(around.ask_by(Some(9), &snapshot, 2, false), 2);
    assert_eq!(fails(&around, 9), 2);
    assert_eq!(fails(&around, 9), 1, "it is stopped");
    assert_eq!(around.tripped.try_recv().expect("told").share, Share { failures: 3, among: 4 });
    assert_eq!(around.judged(2, 7), Some((22, 21, 0)));
}
