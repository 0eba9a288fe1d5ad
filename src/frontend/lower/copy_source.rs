//! Sources of `COPY` and `ADD`: paths, URLs, git repositories.

use super::copy::{CopyJob, CopyMode};
use super::directory::with_slashes;
use super::{Lowerer, Lowering, location};
use crate::frontend::diagnostic::{Diagnostic, Span};
use crate::frontend::dockerfile::Word;
use crate::frontend::{lint, paths};
use crate::llb::git_url::percent_decoded;
use crate::llb::pattern::has_wildcards;
use crate::llb::state::{About, Source};
use crate::llb::{GitUrl, caps, pb};
use crate::oci::Digest;

/// Name of a downloaded file whose URL has none.
const UNNAMED: &str = "__unnamed__";

/// What is common to all sources of an instruction.
#[derive(Debug, Default)]
pub(super) struct CopyFlags {
    /// Whether it is `ADD`.
    pub(super) is_add: bool,
    /// `--chown`
    pub(super) chown: Option<String>,
    /// `--chmod`, as written.
    pub(super) chmod: Option<String>,
    /// `--chmod`
    pub(super) mode: CopyMode,
    /// `--exclude`
    pub(super) excludes: Vec<String>,
    /// `--parents`
    pub(super) parents: bool,
    /// `--checksum`
    pub(super) checksum: Option<String>,
    /// Where that stands.
    pub(super) checksum_span: Option<Span>,
    /// `--keep-git-dir`
    pub(super) keep_git_dir: Option<bool>,
    /// `--unpack`
    pub(super) unpack: Option<bool>,
}

impl Lowerer<'_> {
    /// Adds the copy of one source.
    pub(super) fn copy_source(
        &mut self,
        job: &mut CopyJob<'_>,
        source: &str,
        word: &Word,
    ) -> Lowering<()> {
        let fail = |message: String| Err(Box::new(Diagnostic::error(word.span, message)));
        if let Some(git) = GitUrl::parse(source) {
            return match git {
                Err(error) => fail(error.to_string()),
                Ok(_) if !job.flags.is_add => {
                    fail("COPY cannot take files from a git repository; ADD can".to_owned())
                }
                Ok(git) => self.git_source(job, git, word),
            };
        }
        if source.starts_with("http://") || source.starts_with("https://") {
            if !job.flags.is_add {
                return fail("COPY cannot take a file from a URL; ADD can".to_owned());
            }
            return self.http_source(job, source, word);
        }
        if job.flags.checksum.is_some() {
            let span = job.flags.checksum_span.unwrap_or(word.span);
            let message = "--checksum is for URLs and git repositories";
            return Err(Box::new(Diagnostic::error(span, message)));
        }
        self.path_source(job, source, word)
    }

    fn path_source(&mut self, job: &mut CopyJob<'_>, source: &str, word: &Word) -> Lowering<()> {
        let source = &with_slashes(job.is_windows, source, word)?;
        let root = match job.from {
            Some(stage) => self.states[&stage].root,
            None => {
                let cleaned = paths::clean(source);
                if self.is_ignored(&cleaned) {
                    let keyword = if job.flags.is_add { "ADD" } else { "COPY" };
                    self.warnings
                        .push(lint::ignored_source(keyword, &cleaned, word.span));
                }
                self.main_context(word.span)?
            }
        };
        self.use_path(root, source);
        let mut copy = pb::FileActionCopy {
            src: paths::absolute("/", source),
            follow_symlink: true,
            dir_copy_contents: true,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            attempt_unpack_docker_compatibility: job.flags.unpack.unwrap_or(job.flags.is_add),
            ..pb::FileActionCopy::default()
        };
        if job.flags.parents {
            // What stands before `/./` is not part of the copied path.
            let (parent, pattern) = source.split_once("/./").unwrap_or(("/", source));
            let pattern = paths::absolute("/", pattern);
            if !has_wildcards(parent) && !has_wildcards(&pattern) {
                let required = paths::absolute("/", &format!("{parent}{pattern}"));
                copy.required_paths.push(required);
            }
            copy.src = paths::absolute("/", parent);
            copy.include_patterns.push(pattern[1..].to_owned());
        }
        job.add(root, copy);
        Ok(())
    }

    fn http_source(&mut self, job: &mut CopyJob<'_>, url: &str, word: &Word) -> Lowering<()> {
        let file = file_name(url);
        let mut source = Source::new(url, caps::SOURCE_HTTP).with("http.filename", &file);
        if let Some(checksum) = &job.flags.checksum {
            let digest = checksum.parse::<Digest>();
            let span = job.flags.checksum_span.unwrap_or(word.span);
            let digest = digest.map_err(|e| Box::new(Diagnostic::error(span, e.to_string())))?;
            let cap = caps::SOURCE_HTTP_CHECKSUM;
            source = source.with_cap("http.checksum", digest.to_string(), cap);
        }
        let root = self.builder.source(source, job.about_source());
        job.add(
            Some(root),
            pb::FileActionCopy {
                src: paths::absolute("/", &file),
                attempt_unpack_docker_compatibility: job.flags.unpack.unwrap_or(false),
                ..pb::FileActionCopy::default()
            },
        );
        Ok(())
    }

    fn git_source(&mut self, job: &mut CopyJob<'_>, mut git: GitUrl, word: &Word) -> Lowering<()> {
        let fail = |what: &str| {
            let message = format!("{what} says one thing as a flag and another in the URL");
            Err(Box::new(Diagnostic::error(word.span, message)))
        };
        match (job.flags.keep_git_dir, git.keep_git_dir) {
            (Some(flag), Some(query)) if flag != query => return fail("keep-git-dir"),
            (flag, query) => git.keep_git_dir = query.or(flag),
        }
        match (&job.flags.checksum, &git.checksum) {
            (Some(flag), Some(query)) if flag != query => return fail("checksum"),
            (Some(flag), _) => git.checksum = Some(flag.clone()),
            (None, _) => {}
        }
        let root = self.builder.source(git.source(), job.about_source());
        job.add(
            Some(root),
            pb::FileActionCopy {
                src: "/".to_owned(),
                ..pb::FileActionCopy::default()
            },
        );
        Ok(())
    }
}

impl CopyJob<'_> {
    /// Describes a source that belongs to the step.
    fn about_source(&self) -> About {
        About {
            name: self.name.clone(),
            locations: vec![location(self.step.span())],
            ..About::default()
        }
    }
}

/// Returns the last part of the path of a URL.
fn file_name(url: &str) -> String {
    let address = url.split_once("://").map_or(url, |(_, address)| address);
    let address = address.split(['?', '#']).next().unwrap_or_default();
    let path = address.split_once('/').map_or("", |(_, path)| path);
    match paths::base(&percent_decoded(path)) {
        "." | "/" => UNNAMED.to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_are_named_by_their_urls() {
        for (url, name) in [
            ("https://h/a/b.tar.gz", "b.tar.gz"),
            ("https://h/a/b%20c?d=/e#f/g", "b c"),
            ("https://h/a/", "a"),
            ("https://h/", UNNAMED),
            ("https://h", UNNAMED),
            ("https://h?x=/y", UNNAMED),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }
}
