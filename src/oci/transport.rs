//! Images outside registries, written as buildah and skopeo write them: `transport:path[:name]`.
//!
//! | text | what it is |
//! |---|---|
//! | `oci-archive:path[:name]` | a tar archive of an OCI layout |
//! | `docker-archive:path[:name]` or `…:@number` | what `docker save` writes |
//! | `oci:path[:name]` | a folder that is an OCI layout |
//! | `dir:path` | a folder with a manifest and its blobs |
//! | `docker://name` | an image in a registry |
//!
//! Some of these could also be the name and the tag of an image (`oci:1.0`): whether the path
//! exists decides, and only who may look at files can tell.

use super::Reference;

/// An image in a file or folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageFile {
    /// What the file or folder is.
    pub form: ImageFileForm,
    /// Where it is.
    pub path: String,
    /// Which of several images in it is meant.
    pub name: Option<String>,
    /// Whether the text can mean nothing else.
    pub is_certain: bool,
}

/// What holds an [`ImageFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageFileForm {
    /// A tar archive of an OCI layout.
    OciArchive,
    /// What `docker save` writes.
    DockerArchive,
    /// A folder that is an OCI layout.
    OciLayout,
    /// A folder with a manifest and its blobs.
    Directory,
}

/// A text that begins with the name of a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transported {
    /// An image in a file or folder.
    File(ImageFile),
    /// The name of an image in a registry.
    Registry(String),
    /// An image of a kind that cannot be read, by the name of the transport.
    Unsupported(&'static str),
}

/// Transports whose images cannot be read.
const UNSUPPORTED: [&str; 2] = ["containers-storage", "docker-daemon"];

impl Transported {
    /// Reads a text; `None` where no transport is named.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        if let Some(name) = UNSUPPORTED.iter().find(|name| **name == scheme) {
            return Some(Self::Unsupported(name));
        }
        let form = match scheme {
            "docker" => {
                return rest
                    .strip_prefix("//")
                    .map(|name| Self::Registry(name.into()));
            }
            "oci-archive" => ImageFileForm::OciArchive,
            "docker-archive" => ImageFileForm::DockerArchive,
            "oci" => ImageFileForm::OciLayout,
            "dir" => ImageFileForm::Directory,
            _ => return None,
        };
        let (path, name) = match form {
            ImageFileForm::Directory => (rest, None),
            _ => match rest.split_once(':') {
                Some((path, name)) => (path, Some(name)),
                None => (rest, None),
            },
        };
        if path.is_empty() {
            return None;
        }
        let looks_like_path = ["/", "./", "../"]
            .iter()
            .any(|start| path.starts_with(start));
        Some(Self::File(ImageFile {
            form,
            path: path.to_owned(),
            name: name.filter(|name| !name.is_empty()).map(str::to_owned),
            is_certain: looks_like_path || text.parse::<Reference>().is_err(),
        }))
    }
}

impl ImageFile {
    /// Returns the name of the transport.
    pub fn transport(&self) -> &'static str {
        match self.form {
            ImageFileForm::OciArchive => "oci-archive",
            ImageFileForm::DockerArchive => "docker-archive",
            ImageFileForm::OciLayout => "oci",
            ImageFileForm::Directory => "dir",
        }
    }
}

impl std::fmt::Display for ImageFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.transport(), self.path)?;
        match &self.name {
            Some(name) => write!(f, ":{name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_told_from_names_of_images() {
        for (text, expected) in [
            ("oci-archive:a.tar", "file oci-archive:a.tar?"),
            (
                "oci-archive:./a.tar:app:1.0",
                "file oci-archive:./a.tar:app:1.0",
            ),
            ("oci-archive:dir/a.tar", "file oci-archive:dir/a.tar"),
            ("docker-archive:/a.tar:@1", "file docker-archive:/a.tar:@1"),
            ("oci:1.0", "file oci:1.0?"),
            ("oci:/layout:v1", "file oci:/layout:v1"),
            ("dir:/a:b", "file dir:/a:b"),
            // A registry on a host named like a transport.
            ("oci:5000/image", "file oci:5000/image?"),
            ("docker://alpine:3", "registry alpine:3"),
            (
                "containers-storage:alpine",
                "unsupported containers-storage",
            ),
            ("docker-daemon:a:latest", "unsupported docker-daemon"),
            ("docker:24", "none"),
            ("debian:12", "none"),
            ("debian", "none"),
            ("oci-archive:", "none"),
        ] {
            let found = match Transported::parse(text) {
                None => "none".to_owned(),
                Some(Transported::File(file)) => {
                    format!("file {file}{}", if file.is_certain { "" } else { "?" })
                }
                Some(Transported::Registry(name)) => format!("registry {name}"),
                Some(Transported::Unsupported(name)) => format!("unsupported {name}"),
            };
            assert_eq!(found, expected, "{text}");
        }
    }
}
