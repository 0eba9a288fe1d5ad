//! The folders of cache mounts, one by one: listing, writing to archives, filling, removing.

use std::io::{Read, Write};

use super::Engine;
use super::error::{EngineError, ErrorKind};
use super::request::{MountRow, RecordType, UsageItem};
use crate::cache::mounts::{MountFolder, folders};
use crate::worker::mount_archive;

impl Engine {
    /// Lists the folders of all cache mounts.
    pub fn cache_mounts(&self) -> Result<Vec<MountRow>, EngineError> {
        let row = |folder: MountFolder| MountRow {
            name: folder.name(),
            size_bytes: folder.bytes(),
            last_used_ns: folder.last_used_ns,
            is_in_use: folder.is_in_use,
            id: folder.id,
        };
        Ok(self.mount_folders()?.into_iter().map(row).collect())
    }

    /// Writes the folder of a cache mount as a tar.
    pub fn export_mount(&self, id: &str, output: impl Write) -> Result<(), EngineError> {
        let mut called = self.called(id)?;
        let folder = called.remove(0);
        let lock = folder.lock();
        let lock = lock.map_err(|error| EngineError::store("lock a folder of", error))?;
        if lock.is_none() {
            return Err(in_use(&folder));
        }
        mount_archive::export(&folder.path, output).map_err(|error| {
            let text = format!("cannot export the cache mount {id:?}: {error}");
            EngineError::new(ErrorKind::Config, text).with_source(error)
        })
    }

    /// Replaces what the folder of a cache mount holds by what is in an archive.
    pub fn import_mount(&self, id: &str, input: impl Read + Send) -> Result<(), EngineError> {
        let known = self.mount_folders()?;
        let known = known.into_iter().find(|folder| folder.is_called(id));
        let mounts_dir = self.dir("cache/mounts");
        let failed = |error: &dyn std::error::Error| {
            let text = format!("cannot import the cache mount {id:?}: {error}");
            EngineError::new(ErrorKind::User, text)
        };
        let input = std::sync::Mutex::new(Some(input));
        let fill = |folder: &std::path::Path| {
            std::fs::create_dir(folder)?;
            let input = input.lock().ok().and_then(|mut input| input.take());
            let input =
                input.ok_or_else(|| std::io::Error::other("the archive was read already"))?;
            mount_archive::import(input, folder).map_err(std::io::Error::other)
        };
        let replaced = folders::replace(&mounts_dir, id, known.as_ref(), &fill);
        match replaced.map_err(|error| failed(&error).with_source(error))? {
            true => Ok(()),
            false => Err(EngineError::new(
                ErrorKind::Config,
                format!("the cache mount {id:?} is in use"),
            )),
        }
    }

    /// Removes the folders of a cache mount.
    pub fn remove_mount(&self, id: &str) -> Result<Vec<UsageItem>, EngineError> {
        let mut removed = Vec::new();
        for folder in self.called(id)? {
            let freed = folder.remove();
            let freed = freed.map_err(|error| EngineError::store("remove a folder of", error))?;
            let Some(size_bytes) = freed else {
                return Err(in_use(&folder));
            };
            removed.push(UsageItem {
                id: folder.name(),
                record_type: RecordType::CacheMount,
                size_bytes,
                ..UsageItem::internal(&format!("cached mount {}", folder.id))
            });
        }
        Ok(removed)
    }

    fn mount_folders(&self) -> Result<Vec<MountFolder>, EngineError> {
        folders::list(&self.dir("cache/mounts"))
            .map_err(|error| EngineError::store("list the cache mounts of", error))
    }

    /// Finds the folders that an id or a name means, at least one.
    fn called(&self, id: &str) -> Result<Vec<MountFolder>, EngineError> {
        let folders = self.mount_folders()?.into_iter();
        let called: Vec<MountFolder> = folders.filter(|folder| folder.is_called(id)).collect();
        if called.is_empty() {
            let text = format!("there is no cache mount {id:?}");
            return Err(EngineError::new(ErrorKind::User, text)
                .with_hint("`cooper cache mounts ls` lists them"));
        }
        Ok(called)
    }
}

fn in_use(folder: &MountFolder) -> EngineError {
    let text = format!(
        "the cache mount {:?} is in use by a running step",
        folder.id
    );
    EngineError::new(ErrorKind::Config, text)
}
