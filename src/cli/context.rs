//! The build context and the Dockerfile, from what was typed and what stdin holds.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::engine::request::{
    BucketObject, BuildContext, DockerfileSource, NamedContext, is_remote_context,
};
use crate::oci::{Digest, Reference, Transported};
use crate::session::text;

/// Largest Dockerfile that is read from stdin.
const DOCKERFILE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of stdin looked at to tell a tar archive from a Dockerfile.
const PEEK_BYTES: u64 = 512;
/// First bytes of compressed streams.
const MAGIC: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
/// Kaniko's way to name a folder.
const FOLDER: &str = "dir://";
/// Kaniko's way to name an archive, which may stand on stdin.
const ARCHIVE: &str = "tar://";
/// What stands for stdin behind [`ARCHIVE`].
const STDIN: &str = "stdin";

/// Reads variables of the environment: they say how to get into buckets.
pub(crate) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;
/// Where a tar header says what it is.
const USTAR: std::ops::Range<usize> = 257..262;

/// Finds the build context and the Dockerfile.
pub(crate) fn resolve(
    context: &str,
    file: Option<&str>,
    stdin: impl Read + Send + Sync + 'static,
    variable: Variable<'_>,
) -> Result<(BuildContext, DockerfileSource), String> {
    let context = context.strip_prefix(FOLDER).unwrap_or(context);
    let archive = context.strip_prefix(ARCHIVE);
    if context == "-" || archive == Some(STDIN) {
        if file == Some("-") {
            return Err(
                "invalid argument: can't use stdin for both build context and dockerfile".into(),
            );
        }
        return from_stdin(file, stdin);
    }
    if let Some(path) = archive {
        let archive = std::fs::File::open(path);
        let archive = archive
            .map_err(|error| format!("unable to prepare context: cannot open {path:?}: {error}"))?;
        let dockerfile = remote_dockerfile(file, stdin)?;
        return Ok((BuildContext::Tar(Box::new(archive)), dockerfile));
    }
    let path = Path::new(context);
    if !path.is_dir() {
        if let Some(object) = BucketObject::parse(context, variable) {
            let object = object.map_err(|why| format!("unable to prepare context: {why}"))?;
            let dockerfile = remote_dockerfile(file, stdin)?;
            return Ok((BuildContext::Object(object), dockerfile));
        }
        if is_remote_context(context) {
            let dockerfile = remote_dockerfile(file, stdin)?;
            return Ok((BuildContext::Remote(context.to_owned()), dockerfile));
        }
    }
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("unable to prepare context: path {context:?} not found")
        }
        _ => format!("unable to prepare context: cannot open {context:?}: {error}"),
    })?;
    if !metadata.is_dir() {
        return Err(format!(
            "unable to prepare context: {context:?} is not a directory"
        ));
    }
    let dockerfile = match file {
        None => DockerfileSource::Default,
        Some(file) => self::dockerfile(file, stdin)?,
    };
    Ok((BuildContext::Directory(path.to_owned()), dockerfile))
}

/// Finds a Dockerfile that needs no build context.
pub(crate) fn dockerfile(
    file: &str,
    stdin: impl Read + Send + Sync + 'static,
) -> Result<DockerfileSource, String> {
    match file {
        "-" => Ok(DockerfileSource::Text(read_text(stdin, "stdin")?)),
        pipe if is_stream(Path::new(pipe)) => {
            let opened =
                File::open(pipe).map_err(|error| format!("cannot open {pipe}: {error}"))?;
            Ok(DockerfileSource::Text(read_text(opened, pipe)?))
        }
        url if is_web_url(url) => Ok(DockerfileSource::Url(url.to_owned())),
        file => Ok(DockerfileSource::File(file.into())),
    }
}

/// Adds further Dockerfiles to the first one.
pub(crate) fn several(
    first: DockerfileSource,
    more: &[String],
) -> Result<DockerfileSource, String> {
    let DockerfileSource::File(first) = first else {
        return Err("several -f are files of this machine, or none is".into());
    };
    if more.iter().any(|file| file == "-") {
        return Err("several -f cannot be read from stdin".into());
    }
    let more = more.iter().map(PathBuf::from);
    Ok(DockerfileSource::Files(
        [first].into_iter().chain(more).collect(),
    ))
}

/// Finds the Dockerfile of a build context behind a URL: a path is one inside of it, unless it
/// is absolute.
fn remote_dockerfile(
    file: Option<&str>,
    stdin: impl Read + Send + Sync + 'static,
) -> Result<DockerfileSource, String> {
    match file {
        None => Ok(DockerfileSource::Default),
        Some(file) if file == "-" || is_web_url(file) || Path::new(file).is_absolute() => {
            dockerfile(file, stdin)
        }
        Some(file) => Ok(DockerfileSource::InContext(file.to_owned())),
    }
}

/// Reads one `--build-context`: `name=folder`, `name=docker-image://…`, `name=oci-layout://…`,
/// `name=target:stage`, `name=URL`, an archive in a bucket, or an image in a file as buildah
/// names it.
pub(crate) fn named(text: &str, variable: Variable<'_>) -> Result<(String, NamedContext), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| format!("invalid context value: {text}, expected key=value"))?;
    let (plain, _) = name.split_once("::").unwrap_or((name, ""));
    if let Err(error) = plain.parse::<Reference>() {
        return Err(format!("invalid context name {name}: {error}"));
    }
    let context = if let Some(image) = value.strip_prefix("docker-image://") {
        let image: Reference = image.parse().map_err(|error| format!("{error}"))?;
        NamedContext::Image(image.with_default_tag())
    } else if let Some(layout) = value.strip_prefix("oci-layout://") {
        oci_layout(layout)?
    } else if let Some(stage) = value.strip_prefix("target:") {
        NamedContext::Stage(stage.to_owned())
    } else if Path::new(value.strip_prefix(FOLDER).unwrap_or(value)).is_dir() {
        NamedContext::Directory(value.strip_prefix(FOLDER).unwrap_or(value).into())
    } else if let Some(object) = BucketObject::parse(value, variable) {
        NamedContext::Object(
            object.map_err(|why| format!("failed to get build context {name}: {why}"))?,
        )
    } else if let Some(context) = transported(name, value)? {
        context
    } else if is_remote_context(value) {
        NamedContext::Remote(value.to_owned())
    } else {
        return Err(format!(
            "failed to get build context {name}: {value:?} is not a directory"
        ));
    };
    Ok((name.to_owned(), context))
}

/// Reads `oci-archive:path` and its like, and buildah's `docker://name`.
fn transported(name: &str, value: &str) -> Result<Option<NamedContext>, String> {
    match Transported::parse(value) {
        None => Ok(None),
        Some(Transported::File(file)) => Ok(Some(NamedContext::File(file))),
        Some(Transported::Registry(image)) => {
            let image: Reference = image.parse().map_err(|error| format!("{error}"))?;
            Ok(Some(NamedContext::Image(image.with_default_tag())))
        }
        Some(Transported::Unsupported(transport)) => Err(format!(
            "failed to get build context {name}: images of the transport {transport} cannot be \
             read: save the image and name it as oci-archive:path"
        )),
    }
}

fn oci_layout(text: &str) -> Result<NamedContext, String> {
    let (rest, digest) = match text.rsplit_once('@') {
        Some((rest, digest)) => {
            let digest: Digest = digest.parse().map_err(|error| format!("{error}"))?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (path, tag) = match rest[name_start..].rfind(':') {
        Some(colon) => {
            let (path, tag) = rest.split_at(name_start + colon);
            (path, Some(tag[1..].to_owned()))
        }
        None => (rest, None),
    };
    let path = PathBuf::from(path);
    if !path.is_dir() {
        return Err(format!(
            "oci-layout {:?} is not a directory",
            path.display()
        ));
    }
    Ok(NamedContext::OciLayout { path, tag, digest })
}

fn from_stdin(
    file: Option<&str>,
    mut stdin: impl Read + Send + Sync + 'static,
) -> Result<(BuildContext, DockerfileSource), String> {
    let mut head = Vec::new();
    let peek = stdin.by_ref().take(PEEK_BYTES);
    read_all(peek, "stdin", &mut head)?;
    let everything = std::io::Cursor::new(head.clone()).chain(stdin);
    if is_archive(&head) {
        let dockerfile = match file {
            None => DockerfileSource::Default,
            Some(file) => DockerfileSource::InContext(file.to_owned()),
        };
        return Ok((BuildContext::Tar(Box::new(everything)), dockerfile));
    }
    if head.is_empty() {
        return Err("nothing to build: stdin is empty".into());
    }
    if file.is_some() {
        return Err(
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles".into(),
        );
    }
    let text = read_text(everything, "stdin")?;
    Ok((BuildContext::Empty, DockerfileSource::Text(text)))
}

/// Reads a Dockerfile that comes from a stream of this name.
fn read_text(source: impl Read, name: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    read_all(source.take(DOCKERFILE_BYTES_MAX + 1), name, &mut bytes)?;
    if bytes.len() as u64 > DOCKERFILE_BYTES_MAX {
        return Err(format!("the Dockerfile on {name} is larger than 16 MiB"));
    }
    text::decode(bytes).map_err(|bad| format!("the Dockerfile on {name}: {bad}"))
}

fn read_all(mut source: impl Read, name: &str, bytes: &mut Vec<u8>) -> Result<(), String> {
    match source.read_to_end(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cannot read {name}: {error}")),
    }
}

/// Says whether something can be read once only: what a shell puts in place of `<(…)`,
/// `/dev/stdin`.
fn is_stream(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_fifo() || kind.is_char_device()
    })
}

fn is_archive(head: &[u8]) -> bool {
    MAGIC.iter().any(|magic| head.starts_with(magic)) || head.get(USTAR) == Some(b"ustar")
}

fn is_web_url(text: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|prefix| text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn show(context: &str, file: Option<&str>, stdin: &[u8]) -> String {
        let stdin_reader = std::io::Cursor::new(stdin.to_vec());
        match resolve(context, file, stdin_reader, &|_| None) {
            Err(error) => format!("error: {error}"),
            Ok((BuildContext::Tar(mut tar), dockerfile)) => {
                let mut bytes = Vec::new();
                tar.read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes, stdin);
                format!("Tar {dockerfile:?}")
            }
            Ok((context, dockerfile)) => format!("{context:?} {dockerfile:?}"),
        }
    }

    #[test]
    fn stdin_is_an_archive_or_a_dockerfile() {
        let mut tar = vec![0; 2048];
        tar[USTAR].copy_from_slice(b"ustar");
        for (context, file, stdin, expected) in [
            (
                "-",
                None,
                &b"FROM scratch\n"[..],
                r#"Empty Text("FROM scratch\n")"#,
            ),
            ("-", None, &tar, "Tar Default"),
            (
                "-",
                Some("sub/Dockerfile"),
                &tar,
                r#"Tar InContext("sub/Dockerfile")"#,
            ),
            ("-", None, b"\x1f\x8bxxxx", "Tar Default"),
            ("-", None, b"", "error: nothing to build: stdin is empty"),
            (
                "-",
                Some("-"),
                b"",
                "error: invalid argument: can't use stdin for both build context and dockerfile",
            ),
            (
                "-",
                Some("D"),
                b"FROM a",
                "error: ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
            ),
        ] {
            assert_eq!(show(context, file, stdin), expected);
        }
    }

    #[test]
    fn a_pipe_that_a_shell_made_is_a_dockerfile() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"FROM scratch\n").unwrap();
        drop(writer);
        let pipe = format!("/dev/fd/{}", reader.as_raw_fd());
        let read = dockerfile(&pipe, std::io::empty()).unwrap();
        assert!(matches!(read, DockerfileSource::Text(text) if text == "FROM scratch\n"));
    }

    #[test]
    fn a_context_is_a_folder_or_a_url() {
        for (context, file, stdin, expected) in [
            (
                "/",
                Some("-"),
                &b"FROM a"[..],
                r#"Directory("/") Text("FROM a")"#,
            ),
            ("/", Some("D"), b"", r#"Directory("/") File("D")"#),
            ("/", None, b"", r#"Directory("/") Default"#),
            ("dir:///", None, b"", r#"Directory("/") Default"#),
            ("tar://stdin", None, b"\x1f\x8bxxxx", "Tar Default"),
            (
                "tar:///no/such",
                None,
                b"",
                r#"error: unable to prepare context: cannot open "/no/such": No such file or directory (os error 2)"#,
            ),
            (
                "/no/such",
                None,
                b"",
                r#"error: unable to prepare context: path "/no/such" not found"#,
            ),
        ] {
            assert_eq!(show(context, file, stdin), expected);
        }
    }

    #[test]
    fn what_lies_behind_urls_is_left_to_the_engine() {
        for (context, file, stdin, expected) in [
            (
                "https://example.org/a.git#v1:sub",
                Some("sub/Dockerfile"),
                &b""[..],
                r#"Remote("https://example.org/a.git#v1:sub") InContext("sub/Dockerfile")"#,
            ),
            (
                "https://example.org/a.tgz",
                Some("/D"),
                b"",
                r#"Remote("https://example.org/a.tgz") File("/D")"#,
            ),
            (
                "git@example.org:a.git",
                Some("-"),
                b"FROM a",
                r#"Remote("git@example.org:a.git") Text("FROM a")"#,
            ),
            (
                "/",
                Some("https://example.org/Dockerfile"),
                b"",
                r#"Directory("/") Url("https://example.org/Dockerfile")"#,
            ),
            (
                "s3:///key",
                None,
                b"",
                "error: unable to prepare context: cannot read s3:///key: it names no bucket",
            ),
        ] {
            assert_eq!(show(context, file, stdin), expected);
        }
    }

    #[test]
    fn named_contexts_are_folders_images_and_layouts() {
        for (text, expected) in [
            ("a=/", r#"Ok(("a", Directory("/")))"#),
            ("a=dir:///", r#"Ok(("a", Directory("/")))"#),
            ("a=target:b", r#"Ok(("a", Stage("b")))"#),
            (
                "a=https://example.org/a.git",
                r#"Ok(("a", Remote("https://example.org/a.git")))"#,
            ),
            (
                "a::linux/arm64=docker://busybox:1",
                r#"Ok(("a::linux/arm64", Image(Reference { domain: "docker.io", path: "library/busybox", tag: Some("1"), digest: None })))"#,
            ),
            (
                "a=oci-archive:x/y.tar:n",
                r#"Ok(("a", File(ImageFile { form: OciArchive, path: "x/y.tar", name: Some("n"), is_certain: true })))"#,
            ),
            (
                "a=oci-layout:///:v1",
                r#"Ok(("a", OciLayout { path: "/", tag: Some("v1"), digest: None }))"#,
            ),
            (
                "a",
                r#"Err("invalid context value: a, expected key=value")"#,
            ),
            (
                "a=/no",
                r#"Err("failed to get build context a: \"/no\" is not a directory")"#,
            ),
        ] {
            assert_eq!(format!("{:?}", named(text, &|_| None)), expected);
        }
        let (_, image) = named("a=docker-image://debian", &|_| None).unwrap();
        let debian: Reference = "debian:latest".parse().unwrap();
        assert_eq!(image, NamedContext::Image(debian));
    }
}
