//! Several definitions in one solve.

use super::*;

#[tokio::test]
async fn several_definitions_share_what_they_have_in_common() {
    let mut bench = Bench::new();
    // One result is the input of another, and one is scratch.
    let mut definitions: Vec<Definition> = ["copy to arm64", "", "copy to amd64"]
        .into_iter()
        .map(|last| {
            let mut build = Build::default();
            let image = build.step("image debian", &[]);
            let mut result = build.step("run make", &[&image]);
            if !last.is_empty() {
                result = build.step(last, &[&result]);
            }
            build.result(&result)
        })
        .collect();
    definitions.push(Definition::default());
    for expected in [4, 0] {
        let worker = Arc::new(bench.worker());
        let solved = bench.try_solve_all(&definitions, &worker, CancellationToken::new());
        let results = solved.await.unwrap().results;
        assert_eq!(worker.take_runs().len(), expected);
        let outputs: Vec<Option<String>> = results.into_iter().map(|r| r.output).collect();
        let [Some(other), Some(shared), Some(one), None] = &outputs[..] else {
            panic!("{outputs:?}");
        };
        for (output, step) in [(other, "arm64"), (one, "amd64"), (shared, "run make")] {
            assert!(output.contains(step), "{output}");
        }
        assert!(other.contains(shared.as_str()) && !one.contains("arm64"));
    }
}
