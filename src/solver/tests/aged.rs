//! Results that are too old to be taken (`--cache-ttl`).

use super::*;

/// `FROM image; RUN update; RUN <op>`.
fn chain(op: &str) -> Definition {
    let mut build = Build::default();
    let image = build.step("image debian", &[]);
    let update = build.step("run update", &[&image]);
    let last = build.step(op, &[&update]);
    build.result(&last)
}

fn worker(bench: &Bench, update: &str) -> FakeWorker {
    let mut worker = bench.worker();
    worker.compares = true;
    let output = ("run update".to_owned(), update.to_owned());
    worker.outputs.lock().unwrap().extend([output]);
    worker
}

/// A bench at a time, in seconds, where results live for ten.
fn at(bench: &mut Bench, seconds: i64) {
    bench.options.now_ns = seconds * 1_000_000_000;
    bench.age_max = Some(Duration::from_secs(10));
}

#[tokio::test]
async fn a_result_that_is_too_old_is_made_anew_with_all_that_stands_on_it() {
    let mut bench = Bench::new();
    at(&mut bench, 0);
    let runs = bench.runs(&chain("run a"), worker(&bench, "old=1")).await;
    assert_eq!(runs, ["image debian", "run a", "run update"]);
    // A younger step on the same result.
    at(&mut bench, 8);
    let runs = bench.runs(&chain("run b"), worker(&bench, "new=1")).await;
    assert_eq!(runs, ["run b"]);
    at(&mut bench, 12);
    let (output, runs, _) = bench.solve(&chain("run b"), worker(&bench, "new=1")).await;
    assert_eq!(runs, ["run update", "run b"]);
    assert_eq!(output, "run b(new=1)");
    let said = &bench.recorder.of("miss")[0];
    assert!(
        said.ends_with("its result is 12s old (--cache-ttl 10s)"),
        "{said}"
    );
    // The new results are found, also by who does not ask how old they are.
    for age_max in [bench.age_max, None] {
        bench.age_max = age_max;
        let runs = bench.runs(&chain("run b"), worker(&bench, "new=1")).await;
        assert_eq!(runs, NOTHING);
    }
}

#[tokio::test]
async fn a_run_that_gives_the_same_makes_the_old_result_new() {
    let mut bench = Bench::new();
    at(&mut bench, 0);
    bench.solve(&chain("run a"), worker(&bench, "old=1")).await;
    at(&mut bench, 8);
    bench.solve(&chain("run b"), worker(&bench, "old=1")).await;
    at(&mut bench, 12);
    let runs = bench.runs(&chain("run b"), worker(&bench, "old=1")).await;
    assert_eq!(runs, ["run update"]);
    at(&mut bench, 17);
    let runs = bench.runs(&chain("run b"), worker(&bench, "old=1")).await;
    assert_eq!(runs, NOTHING);
}
