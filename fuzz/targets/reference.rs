//! Names and documents of images: what is read is written the same, and read again the same.

#![no_main]

use cooper_fuzz::oci::{Digest, ImageConfig, Index, Manifest, Platform, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        let again: Reference = reference.to_string().parse().expect("its own text");
        assert_eq!(again, reference);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(platform) = text.parse::<Platform>() {
        let again: Platform = platform.to_string().parse().expect("its own text");
        assert_eq!(again.to_string(), platform.to_string());
    }
    let _ = serde_json::from_str::<Manifest>(text);
    let _ = serde_json::from_str::<Index>(text);
    if let Ok(config) = serde_json::from_str::<ImageConfig>(text) {
        let written = serde_json::to_string(&config).expect("a configuration");
        serde_json::from_str::<ImageConfig>(&written).expect("its own text");
    }
});
