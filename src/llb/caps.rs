//! Names of the capabilities that a definition may ask a worker for (BuildKit's apicaps).
//!
//! An op's metadata lists what it cannot do without; a worker that lacks one refuses the
//! definition. Those that cooper itself writes have names here; [`is_known`] knows them all.

/// Images as sources.
pub const SOURCE_IMAGE: &str = "source.image";
/// An image source that must be looked up in its registry.
pub const SOURCE_IMAGE_RESOLVE_MODE: &str = "source.image.resolvemode";
/// Images from an OCI layout that the client has.
pub const SOURCE_OCI_LAYOUT: &str = "source.ocilayout";
/// Folders of the client.
pub const SOURCE_LOCAL: &str = "source.local";
/// `local.followpaths`.
pub const SOURCE_LOCAL_FOLLOW_PATHS: &str = "source.local.followpaths";
/// `local.excludepatterns`.
pub const SOURCE_LOCAL_EXCLUDE_PATTERNS: &str = "source.local.excludepatterns";
/// `local.sharedkeyhint`.
pub const SOURCE_LOCAL_SHARED_KEY_HINT: &str = "source.local.sharedkeyhint";
/// Git repositories.
pub const SOURCE_GIT: &str = "source.git";
/// `git.keepgitdir`.
pub const SOURCE_GIT_KEEP_DIR: &str = "source.git.keepgitdir";
/// `git.fullurl`.
pub const SOURCE_GIT_FULL_URL: &str = "source.git.fullurl";
/// `git.knownsshhosts`; required by every git source over ssh.
pub const SOURCE_GIT_KNOWN_SSH_HOSTS: &str = "source.git.knownsshhosts";
/// `git.mountsshsock`.
pub const SOURCE_GIT_MOUNT_SSH_SOCK: &str = "source.git.mountsshsock";
/// `git.checksum`.
pub const SOURCE_GIT_CHECKSUM: &str = "source.git.checksum";
/// `git.skipsubmodules`.
pub const SOURCE_GIT_SKIP_SUBMODULES: &str = "source.git.skipsubmodules";
/// `git.mtime`.
pub const SOURCE_GIT_MTIME: &str = "source.git.mtime";
/// `git.fetchbycommit`.
pub const SOURCE_GIT_FETCH_BY_COMMIT: &str = "source.git.fetchbycommit";
/// Files fetched by URL.
pub const SOURCE_HTTP: &str = "source.http";
/// `http.checksum`.
pub const SOURCE_HTTP_CHECKSUM: &str = "source.http.checksum";
/// Running a process at all.
pub const EXEC_META_BASE: &str = "exec.meta.base";
/// The executor supplies `PATH` where the op has none.
pub const EXEC_META_SETS_DEFAULT_PATH: &str = "exec.meta.setsdefaultpath";
/// A network other than the default one.
pub const EXEC_META_NETWORK: &str = "exec.meta.network";
/// Proxy variables outside the cache key.
pub const EXEC_META_PROXY: &str = "exec.meta.proxyenv";
/// A sandbox without protection.
pub const EXEC_META_SECURITY: &str = "exec.meta.security";
/// Resource limits per process.
pub const EXEC_META_ULIMIT: &str = "exec.meta.ulimit";
/// Devices by CDI name.
pub const EXEC_META_CDI: &str = "exec.meta.cdi";
/// Mounting a result.
pub const EXEC_MOUNT_BIND: &str = "exec.mount.bind";
/// A cache directory.
pub const EXEC_MOUNT_CACHE: &str = "exec.mount.cache";
/// How a cache directory is shared.
pub const EXEC_MOUNT_CACHE_SHARING: &str = "exec.mount.cache.sharing";
/// Mounting a part of a result.
pub const EXEC_MOUNT_SELECTOR: &str = "exec.mount.selector";
/// A file system in memory.
pub const EXEC_MOUNT_TMPFS: &str = "exec.mount.tmpfs";
/// The size of a file system in memory.
pub const EXEC_MOUNT_TMPFS_SIZE: &str = "exec.mount.tmpfs.size";
/// A secret as a file.
pub const EXEC_MOUNT_SECRET: &str = "exec.mount.secret";
/// The socket of an SSH agent.
pub const EXEC_MOUNT_SSH: &str = "exec.mount.ssh";
/// A secret as an environment variable.
pub const EXEC_SECRET_ENV: &str = "exec.secretenv";
/// File actions.
pub const FILE_BASE: &str = "file.base";
/// Patterns that choose what a copy takes.
pub const FILE_COPY_INCLUDE_EXCLUDE_PATTERNS: &str = "file.copy.includeexcludepatterns";
/// Paths that a copy with patterns must find.
pub const FILE_COPY_REQUIRED_PATHS: &str = "file.copy.requiredpaths";
/// A symbolic mode for a copy.
pub const FILE_COPY_MODE_STRING: &str = "file.copy.modestring";
/// Creating symbolic links.
pub const FILE_SYMLINK_CREATE: &str = "file.symlink.create";
/// Merging results.
pub const MERGE_OP: &str = "mergeop";
/// Differences of results.
pub const DIFF_OP: &str = "diffop";
/// Constraints on the worker.
pub const CONSTRAINTS: &str = "constraints";
/// Ops that name a platform.
pub const PLATFORM: &str = "platform";
/// `ignore_cache` in an op's metadata.
pub const META_IGNORE_CACHE: &str = "meta.ignorecache";
/// Descriptions in an op's metadata.
pub const META_DESCRIPTION: &str = "meta.description";

/// Everything that the ops of a definition may ask for and get.
const KNOWN: [&str; 76] = [
    "constraints",
    "diffop",
    "exec.cgroup",
    "exec.meta.base",
    "exec.meta.cdi",
    "exec.meta.cgroup.parent",
    "exec.meta.linux.resources",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.removemountstubs.recursive",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.content",
    "exec.mount.cache.sharing",
    "exec.mount.secret",
    "exec.mount.selector",
    "exec.mount.ssh",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.includeexcludepatterns",
    "file.copy.modestring",
    "file.copy.requiredpaths",
    "file.rm.nofollowsymlink",
    "file.rm.wildcard",
    "file.symlink.create",
    "mergeop",
    "meta.description",
    "meta.exportcache",
    "meta.ignorecache",
    "passthroughop",
    "platform",
    "soruce.http.uidgid",
    "source.buildop.llbfilename",
    "source.git",
    "source.git.bundle",
    "source.git.checkoutbundle",
    "source.git.checksum",
    "source.git.fetchbycommit",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.keepgitdir",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.mtime",
    "source.git.signatureverify",
    "source.git.skipsubmodules",
    "source.git.subdir",
    "source.http",
    "source.http.auth",
    "source.http.checksum",
    "source.http.header",
    "source.http.perm",
    "source.http.signatureverify",
    "source.image",
    "source.image.checksum",
    "source.image.layerlimit",
    "source.image.resolvemode",
    "source.imageblob",
    "source.local",
    "source.local.differ",
    "source.local.excludepatterns",
    "source.local.followpaths",
    "source.local.includepatterns",
    "source.local.metadatatransfer",
    "source.local.sessionid",
    "source.local.sharedkeyhint",
    "source.local.unique",
    "source.ocilayout",
];

/// Says whether ops that ask for `cap` are performed in full.
pub fn is_known(cap: &str) -> bool {
    KNOWN.binary_search(&cap).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted() {
        assert!(KNOWN.is_sorted());
        assert!(is_known(MERGE_OP) && is_known(PLATFORM) && !is_known("exec.meta.network.proxy"));
    }
}
