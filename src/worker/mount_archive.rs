//! Folders of cache mounts as tar archives.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use crate::archive::{
    ArchiveError, EntryTimes, ExtractOptions, Format, PackOptions, TarWriter, Unobserved,
    Whiteouts, decoder, extract, pack,
};
use crate::sys::root::Root;

/// Writes everything in a folder, the folder itself included, as a tar.
pub fn export(folder: &Path, output: impl Write) -> Result<(), ArchiveError> {
    let root = open(folder)?;
    let options = PackOptions {
        whiteouts: Whiteouts::Literal,
        root_entry: true,
        times: EntryTimes::Kept,
        prefix: PathBuf::new(),
    };
    let mut tar = TarWriter::new(output);
    pack(&root, options, &mut tar, &Unobserved)?;
    let mut output = tar.finish()?;
    output.flush().map_err(ArchiveError::Write)
}

/// Unpacks a tar, compressed or not, into an empty folder.
pub fn import(mut input: impl Read + Send, folder: &Path) -> Result<(), ArchiveError> {
    let mut head = Vec::new();
    let limit = Format::DETECT_BYTES as u64;
    let begun = input.by_ref().take(limit).read_to_end(&mut head);
    begun.map_err(ArchiveError::Read)?;
    let format = Format::detect(&head);
    let whole = BufReader::new(io::Cursor::new(head).chain(input));
    let mut tar = decoder(whole, format).map_err(ArchiveError::Read)?;
    let options = ExtractOptions {
        whiteouts: Whiteouts::Literal,
        owner: None,
    };
    extract(
        &mut tar,
        &open(folder)?,
        Path::new(""),
        options,
        &Unobserved,
    )
    .map(drop)
}

fn open(folder: &Path) -> Result<Root, ArchiveError> {
    Root::open(folder).map_err(|source| ArchiveError::File {
        action: "open",
        path: folder.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_survives_the_round_trip_through_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("sub/.wh.file"), "a cache may hold any name").unwrap();
        std::os::unix::fs::symlink("sub", from.join("link")).unwrap();
        let mut tar = Vec::new();
        export(&from, &mut tar).unwrap();
        import(&tar[..], &to).unwrap();
        assert_eq!(
            std::fs::read(to.join("sub/.wh.file")).unwrap(),
            b"a cache may hold any name"
        );
        assert_eq!(
            std::fs::read_link(to.join("link")).unwrap(),
            Path::new("sub")
        );
        let packed = zstd::encode_all(&tar[..], 1).unwrap();
        std::fs::remove_dir_all(&to).unwrap();
        std::fs::create_dir(&to).unwrap();
        import(&packed[..], &to).unwrap();
        assert!(to.join("sub/.wh.file").exists());
        assert!(import(&b"no archive"[..], &to).is_err());
    }
}
