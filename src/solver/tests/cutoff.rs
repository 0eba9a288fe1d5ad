//! Early cutoff: what follows a step that made the same again.

use super::*;

/// `FROM image; RUN <op>; RUN test; RUN pack`.
fn chain(op: &str) -> Definition {
    let mut build = Build::default();
    let image = build.step("image debian", &[]);
    let make = build.step(op, &[&image]);
    build.rename(&make, "[2/4] RUN make");
    let test = build.step("run test", &[&make]);
    let pack = build.step("run pack", &[&test]);
    build.result(&pack)
}

/// A worker that compares results, and whose `run make` steps deliver these.
fn worker(bench: &Bench, outputs: &[(&str, &str)]) -> FakeWorker {
    let mut worker = bench.worker();
    worker.compares = true;
    let pairs = outputs
        .iter()
        .map(|(op, output)| ((*op).to_owned(), (*output).to_owned()));
    worker.outputs.lock().unwrap().extend(pairs);
    worker
}

#[tokio::test]
async fn what_follows_the_same_result_hits() {
    let mut bench = Bench::new();
    let same = [("run make", "binary=1"), ("run make -j", "binary=1")];
    let (first, runs, _) = bench.solve(&chain("run make"), worker(&bench, &same)).await;
    assert_eq!(runs.len(), 4);
    let (second, runs, summary) = bench
        .solve(&chain("run make -j"), worker(&bench, &same))
        .await;
    assert_eq!(runs, ["run make -j"]);
    assert_eq!((summary.hits, summary.misses), (3, 1));
    assert_eq!(first, second);
    // From now on it is found by its own key.
    let runs = bench
        .runs(&chain("run make -j"), worker(&bench, &same))
        .await;
    assert_eq!(runs, NOTHING);
    let other = [("run make -k", "binary=2")];
    let runs = bench
        .runs(&chain("run make -k"), worker(&bench, &other))
        .await;
    assert_eq!(runs, ["run make -k", "run pack", "run test"]);
}

#[tokio::test]
async fn a_step_that_must_run_is_compared_and_a_whole_build_is_not() {
    let mut bench = Bench::new();
    let same = [("run make", "binary=1")];
    bench.solve(&chain("run make"), worker(&bench, &same)).await;
    let mut definition = chain("run make");
    let loaded = definition.load().unwrap();
    let make = loaded
        .vertices
        .iter()
        .find(|v| v.name() == "[2/4] RUN make");
    definition
        .metadata
        .get_mut(&make.unwrap().digest)
        .unwrap()
        .ignore_cache = true;
    let runs = bench.runs(&definition, worker(&bench, &same)).await;
    assert_eq!(runs, ["run make"]);
    bench.options.no_cache = true;
    let layers = bench.layers.lock().unwrap().len();
    let runs = bench.runs(&chain("run make"), worker(&bench, &same)).await;
    assert_eq!(runs, ["run make", "run pack", "run test"]);
    assert_eq!(bench.layers.lock().unwrap().len(), layers + 3);
}

/// The key of one step leads to the result of another only as long as that result stands.
#[tokio::test]
async fn a_result_made_anew_is_not_what_another_step_made() {
    let mut bench = Bench::new();
    let same = [("run make", "binary=1"), ("run make -j", "binary=1")];
    bench.solve(&chain("run make"), worker(&bench, &same)).await;
    bench
        .solve(&chain("run make -j"), worker(&bench, &same))
        .await;
    // The shared result vanishes, and the first step makes another one now.
    bench.layers.lock().unwrap().clear();
    let changed = [("run make", "binary=2"), ("run make -j", "binary=1")];
    let (output, ..) = bench
        .solve(&chain("run make"), worker(&bench, &changed))
        .await;
    assert!(output.contains("binary=2"), "{output}");
    let (output, runs, _) = bench
        .solve(&chain("run make -j"), worker(&bench, &changed))
        .await;
    assert!(output.contains("binary=1"), "{output}");
    assert!(runs.contains(&"run make -j".to_owned()), "{runs:?}");
}
