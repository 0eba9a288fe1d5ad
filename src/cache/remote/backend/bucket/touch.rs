//! Keeping blobs young: a rule of a bucket that deletes old objects goes by the time of their last
//! write, and a blob is written once, however often it is used.
//!
//! No service copies an object onto itself by the calls that all of them have, so a blob is copied
//! aside and back: its bytes stay where they are, and are there all the time.

use std::sync::PoisonError;

use opendal::ErrorKind;

use super::BucketStore;
use crate::cache::remote::store::StoreError;
use crate::oci::Descriptor;

/// What stands behind the path of the copy.
const ASIDE: &str = ".touched";

impl BucketStore {
    /// Says whether a blob is there, whole; writes it once more if that is long ago.
    pub(super) async fn keep(&self, blob: &Descriptor, now_ns: i64) -> Result<bool, StoreError> {
        let path = self.settings.blob_path(&blob.digest);
        let metadata = match self.operator.stat(&path).await {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.fault(&error)),
        };
        if metadata.content_length() != blob.size {
            return Ok(false);
        }
        let written = metadata.last_modified().map(|time| time.into_inner());
        let written_ns = written.map(|time| time.as_nanosecond());
        let age_ns = written_ns.map(|written| i128::from(now_ns) - written);
        let allowed = self.settings.touch_refresh.map(|age| age.as_nanos());
        let is_old =
            |(age, allowed): (i128, u128)| age > i128::try_from(allowed).unwrap_or(i128::MAX);
        if age_ns.zip(allowed).is_some_and(is_old) {
            self.touch(&path).await?;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(blob.digest.clone());
        Ok(true)
    }

    async fn touch(&self, path: &str) -> Result<(), StoreError> {
        let aside = format!("{path}{ASIDE}");
        let copied = self.operator.copy(path, &aside).await;
        copied.map_err(|error| self.fault(&error))?;
        let back = self.operator.copy(&aside, path).await;
        // What stays aside is litter, which grows old.
        let _ = self.operator.delete(&aside).await;
        match back {
            // Another exporter has done all of it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            back => back.map(|_| ()).map_err(|error| self.fault(&error)),
        }
    }
}
