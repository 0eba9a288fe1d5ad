//! What a frontend from an image is told: the options of the build in BuildKit's spelling.

use std::collections::BTreeMap;

use super::QUESTION;
use super::lent::DOCKERFILE_FOLDER;
use super::stages::INPUT;
use crate::engine::attest;
use crate::engine::build::Build;
use crate::engine::request::{BuildRequest, PullPolicy};
use crate::frontend::syntax::Foreign;
use crate::frontend::{ContextSource, EPOCH};

/// Options of the frontend: a key for each.
pub(super) type Opts = BTreeMap<String, String>;

impl Build {
    /// Writes the options for a frontend.
    pub(super) fn frontend_opts(&self, foreign: &Foreign, question: Option<&str>) -> Opts {
        let request = &self.request;
        let mut opts = attest::arguments(request, false);
        opts.retain(|key, _| !key.starts_with("context:"));
        for (name, source) in &self.inputs.contexts {
            opts.insert(format!("context:{name}"), context(name, source));
        }
        if let ContextSource::Git(url) | ContextSource::Http { url, .. } = &self.inputs.context {
            opts.insert("context".to_owned(), url.clone());
            if self.inputs.lends_dockerfile() {
                opts.insert("dockerfilekey".to_owned(), DOCKERFILE_FOLDER.to_owned());
            }
        }
        add_machine(request, &mut opts);
        let platforms: Vec<_> = request.platforms.iter().map(ToString::to_string).collect();
        let more = [
            ("filename", Some(self.inputs.filename.clone())),
            ("source", Some(foreign.image.clone())),
            ("cmdline", Some(foreign.command_line.clone())),
            (QUESTION, question.map(str::to_owned)),
            (
                "platform",
                (!platforms.is_empty()).then(|| platforms.join(",")),
            ),
        ];
        for (key, value) in more {
            if let Some(value) = value {
                opts.insert(key.to_owned(), value);
            }
        }
        opts
    }
}

/// Adds limits of processes, and what the clock and the registries mean to the build.
fn add_machine(request: &BuildRequest, opts: &mut Opts) {
    let limits = &request.limits;
    let resolve_mode = match request.pull {
        PullPolicy::Missing => None,
        PullPolicy::Always | PullPolicy::Newer => Some("pull"),
        PullPolicy::Never => Some("local"),
    };
    let epoch = request.source_date_epoch_s;
    let epoch = epoch.filter(|_| !request.build_args.contains_key(EPOCH));
    let number = |value: Option<i64>| value.map(|value| value.to_string());
    let more = [
        ("image-resolve-mode", resolve_mode.map(str::to_owned)),
        ("cgroup-parent", limits.cgroup_parent.clone()),
        ("memory", number(limits.memory_bytes)),
        ("memswap", number(limits.memory_swap_bytes)),
        (
            "cpushares",
            limits.cpu_shares.map(|shares| shares.to_string()),
        ),
        (
            "cpuperiod",
            limits.cpu_period_us.map(|period| period.to_string()),
        ),
        ("cpuquota", number(limits.cpu_quota_us)),
        ("cpusetcpus", limits.cpuset_cpus.clone()),
        ("cpusetmems", limits.cpuset_mems.clone()),
        ("build-arg:SOURCE_DATE_EPOCH", number(epoch)),
    ];
    for (key, value) in more {
        if let Some(value) = value {
            opts.insert(key.to_owned(), value);
        }
    }
}

/// Writes a named context.
fn context(name: &str, source: &ContextSource) -> String {
    match source {
        ContextSource::Local { name, .. } => format!("local:{name}"),
        ContextSource::Image(image) => format!("docker-image://{image}"),
        ContextSource::OciLayout { store, digest } => format!("oci-layout://{store}@{digest}"),
        ContextSource::Git(url) | ContextSource::Http { url, .. } => url.clone(),
        // The stage is made first, and is an input then.
        ContextSource::Stage(_) => format!("{INPUT}{name}"),
    }
}
