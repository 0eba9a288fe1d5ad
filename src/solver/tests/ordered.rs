//! Steps that wait for others without using anything of them.

use super::*;

/// Two steps; the second one, which is the result, waits for the first.
fn ordered(first: &str, second: &str) -> Definition {
    let mut build = Build::default();
    let first = build.step(first, &[]);
    let second = build.step(second, &[]);
    build.after(&second, &first);
    build.result(&second)
}

#[tokio::test]
async fn what_is_waited_for_is_solved_and_is_no_part_of_a_key() {
    let mut bench = Bench::new();
    for (first, second, expected) in [
        ("run first", "run second", &["run first", "run second"][..]),
        ("run first", "run second", &[]),
        // The waiting step hits all the same.
        ("run changed", "run second", &["run changed"]),
        ("run changed", "run other", &["run other"]),
    ] {
        let worker = bench.worker();
        let runs = bench.runs(&ordered(first, second), worker).await;
        assert_eq!(runs, expected, "{first}, {second}");
    }
}

#[tokio::test]
async fn a_failure_of_what_is_waited_for_ends_the_solve() {
    let mut bench = Bench::new();
    let mut worker = bench.worker();
    worker.failing.insert("run first".to_owned());
    let worker = Arc::new(worker);
    let definition = ordered("run first", "run second");
    let solved = bench.try_solve(&definition, &worker, CancellationToken::new());
    let Err(SolveError::Vertex { name, .. }) = solved.await else {
        panic!("the solve goes on");
    };
    assert_eq!(name, "run first");
}
