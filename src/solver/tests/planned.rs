//! Plans: what they say, and that the solve that follows does it.

use super::*;
use crate::solver::fake::Random;
use crate::solver::{PlanVerdict, PlannedStep, plan};

/// How many seeds a test run tries.
const SEEDS: u64 = 25;

impl Bench {
    /// Plans and returns the steps; nothing may run.
    async fn plan(&self, definition: &Definition, worker: FakeWorker) -> Vec<PlannedStep> {
        let worker = Arc::new(worker);
        let cache = Cache::open(self.folder.path());
        let steps = plan(
            std::slice::from_ref(definition),
            Arc::clone(&worker),
            &cache,
            self.recorder.progress(),
            self.options.clone(),
            CancellationToken::new(),
        );
        let steps = steps.await.unwrap();
        assert_eq!(worker.take_runs(), NOTHING);
        steps
    }

    async fn lines(&self, definition: &Definition, worker: FakeWorker) -> Vec<String> {
        let steps = self.plan(definition, worker).await;
        steps.iter().map(line).collect()
    }
}

fn line(step: &PlannedStep) -> String {
    let name = &step.name;
    match &step.verdict {
        PlanVerdict::Local => format!("local {name}"),
        PlanVerdict::Hit => format!("hit {name}"),
        PlanVerdict::Miss(reason) => format!("miss {}", reason.text(name)),
        PlanVerdict::Depends(on) => format!("depends {name} on {on}"),
        PlanVerdict::NotNeeded => format!("not needed {name}"),
    }
}

#[tokio::test]
async fn a_plan_says_what_would_run_and_why() {
    let mut bench = Bench::new();
    let context = |bench: &Bench, files: &str| {
        let worker = bench.worker();
        let outputs = [("local context", files), ("run make", "binary=1")];
        let pairs = outputs.map(|(op, output)| (op.to_owned(), output.to_owned()));
        worker.outputs.lock().unwrap().extend(pairs);
        worker
    };
    assert_eq!(
        bench.lines(&two_stages(), context(&bench, "a=1 b=1")).await,
        [
            "miss image debian: never built here",
            "local local context",
            "miss copy src/ /src: never built here",
            "depends run make on copy src/ /src",
            "depends copy /out / on run make",
            "depends run ldconfig on copy /out /",
        ]
    );
    bench.solve(&two_stages(), context(&bench, "a=1 b=1")).await;
    let lines = bench.lines(&two_stages(), context(&bench, "a=1 b=1")).await;
    let hits = lines.iter().filter(|line| line.starts_with("hit ")).count();
    assert_eq!(hits, 5, "{lines:?}");
    assert_eq!(
        bench.lines(&two_stages(), context(&bench, "a=2 b=1")).await,
        [
            "hit image debian",
            "local local context",
            "miss copy src/ /src: 1 of 2 files changed: a",
            "depends run make on copy src/ /src",
            "depends copy /out / on run make",
            "depends run ldconfig on copy /out /",
        ]
    );
    // Nothing of that was remembered.
    let lines = bench.lines(&two_stages(), context(&bench, "a=1 b=1")).await;
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("hit ")).count(),
        5
    );
    bench.options.no_cache = true;
    let lines = bench.lines(&two_stages(), context(&bench, "a=1 b=1")).await;
    assert_eq!(lines[0], "hit image debian");
    assert_eq!(lines[2], "miss copy src/ /src: --no-cache");
}

#[tokio::test]
async fn what_nobody_needs_is_said_to_be_so_and_what_is_lost_would_run() {
    let mut bench = Bench::new();
    let worker = bench.worker();
    bench.solve(&two_stages(), worker).await;
    let layers = bench.layers.lock().unwrap().clone();
    let last = layers
        .iter()
        .find(|(_, outputs)| outputs[0].starts_with("run ldconfig"));
    bench.layers.lock().unwrap().remove(last.unwrap().0);
    let lines = bench.lines(&two_stages(), bench.worker()).await;
    assert_eq!(
        lines[5],
        "miss run ldconfig: the layer of its result is gone"
    );
    assert_eq!(lines[3], "hit run make");
    let mut build = Build::default();
    let image = build.step("image alpine", &[]);
    let one = build.step("run one", &[&image]);
    let copied = build.step("copy /x /", &[&image, &one]);
    let definition = build.result(&copied);
    bench.solve(&definition, bench.worker()).await;
    let cache = Cache::open(bench.folder.path());
    let records = cache.records().unwrap();
    let lost = records
        .iter()
        .find(|record| record.description == "run one")
        .unwrap();
    let found = cache.peek(&[lost.id]).unwrap().remove(0).unwrap();
    cache.forget(&found).unwrap();
    assert_eq!(
        bench.lines(&definition, bench.worker()).await,
        ["hit image alpine", "not needed run one", "hit copy /x /"]
    );
}

#[tokio::test]
async fn contents_are_digested_only_where_nothing_has_to_be_fetched() {
    let mut bench = Bench::new();
    let definition = |copy: &str| {
        let mut build = Build::default();
        let image = build.step("image debian", &[]);
        let make = build.step("run make", &[&image]);
        let copied = build.step(copy, &[&image, &make]);
        build.result(&copied)
    };
    let (output, ..) = {
        let mut build = Build::default();
        let image = build.step("image debian", &[]);
        let make = build.step("run make", &[&image]);
        bench.solve(&build.result(&make), bench.worker()).await
    };
    let lines = bench.lines(&definition("copy /a /"), bench.worker()).await;
    assert_eq!(lines[2], "miss copy /a /: never built here");
    let worker = bench.worker();
    worker.elsewhere.lock().unwrap().insert(output);
    let lines = bench.lines(&definition("copy /a /"), worker).await;
    assert_eq!(lines[2], "depends copy /a / on run make");
}

/// A project whose steps change now and then, with the same shape.
struct Project {
    inputs: Vec<Vec<usize>>,
    texts: Vec<u64>,
}

impl Project {
    fn random(random: &mut Random) -> Self {
        let count = 3 + random.below(8);
        let inputs = (0..count).map(|n| {
            let wanted = random.below(4).min(n);
            (0..wanted).map(|_| random.below(n)).collect()
        });
        Self {
            inputs: inputs.collect(),
            texts: vec![0; count],
        }
    }

    fn name(&self, n: usize) -> String {
        let kind = match (self.inputs[n].is_empty(), n % 3) {
            (true, 0) => return format!("local {n}"),
            (true, _) => "image",
            (false, 0) => "copy",
            (false, _) => "run",
        };
        format!("{kind} {n} v{}", self.texts[n])
    }

    fn definition(&self) -> Definition {
        let mut build = Build::default();
        let mut digests: Vec<VertexDigest> = Vec::new();
        for n in 0..self.inputs.len() {
            let inputs: Vec<&VertexDigest> = self.inputs[n].iter().map(|i| &digests[*i]).collect();
            digests.push(build.step(&self.name(n), &inputs));
        }
        build.result(&digests[digests.len() - 1])
    }

    /// Every third step delivers the same whatever its text; a local folder has its text.
    fn worker(&self, bench: &Bench) -> FakeWorker {
        let mut worker = bench.worker();
        worker.compares = true;
        let mut outputs = worker.outputs.lock().unwrap();
        for n in 0..self.inputs.len() {
            let name = self.name(n);
            if name.starts_with("local") {
                outputs.insert(name, format!("file={}", self.texts[n]));
            } else if n % 3 == 1 {
                outputs.insert(name, format!("constant={n}"));
            }
        }
        drop(outputs);
        worker
    }
}

#[tokio::test]
async fn the_solve_does_what_the_plan_says() {
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let mut project = Project::random(&mut random);
        let mut bench = Bench::new();
        for round in 0..6 {
            let changed = random.below(project.texts.len());
            project.texts[changed] = random.next() % 3;
            let definition = project.definition();
            let steps = bench.plan(&definition, project.worker(&bench)).await;
            let worker = project.worker(&bench);
            let (_, runs, _) = bench.solve(&definition, worker).await;
            let (hits, idle) = (bench.recorder.of("hit"), bench.recorder.of("not needed"));
            for step in steps {
                let fits = match &step.verdict {
                    PlanVerdict::Local => true,
                    PlanVerdict::Hit => hits.contains(&step.name),
                    PlanVerdict::Miss(_) => runs.contains(&step.name),
                    PlanVerdict::Depends(_) => !idle.contains(&step.name),
                    PlanVerdict::NotNeeded => idle.contains(&step.name),
                };
                assert!(
                    fits,
                    "seed {seed}, round {round}: {step:?}\n{:?}",
                    bench.recorder.lines()
                );
            }
        }
    }
}
