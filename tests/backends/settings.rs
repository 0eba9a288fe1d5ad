//! What is refused before anybody is asked.

use std::collections::BTreeMap;

use cooper::cache::remote::backend::Backend;

#[test]
fn wrong_attributes_are_refused_in_buildkits_words() {
    let both = "s3 cache requires access_key_id and secret_access_key together";
    for (kind, text, error) in [
        (
            "s3",
            "bucket=b",
            "region ($AWS_REGION) not set for s3 cache",
        ),
        (
            "s3",
            "region=r",
            "bucket ($AWS_BUCKET) not set for s3 cache",
        ),
        (
            "s3",
            "bucket=b,region=r,upload_parallelism=0",
            "upload_parallelism must be a positive integer",
        ),
        (
            "s3",
            "bucket=b,region=r,use_path_style=maybe",
            "non-bool value specified for use_path_style: \"maybe\"",
        ),
        ("s3", "bucket=b,region=r,access_key_id=i", both),
        ("s3", "bucket=b,region=r,name=;", "s3 cache requires a name"),
        ("azblob", "container=c", "azblob cache requires account_url"),
        ("gcs", "", "gcs cache requires bucket"),
        ("reapi", "", "reapi cache requires url"),
        (
            "reapi",
            "url=h:1",
            "url of reapi cache: expected grpc://… or grpcs://…",
        ),
        (
            "reapi",
            "url=grpc://h:1,ca=/nowhere",
            "ca: cannot read /nowhere: No such file or directory (os error 2)",
        ),
    ] {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let mut attributes: BTreeMap<String, String> = pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let taken = Backend::take(kind, &mut attributes).unwrap();
        assert_eq!(taken.unwrap_err(), error, "{kind} {text}");
    }
}

#[test]
fn what_has_no_effect_is_said() {
    let notes = |text: &str| {
        let text = format!("bucket=b,region=r,{text}");
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let mut attributes: BTreeMap<String, String> = pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let taken = Backend::take("s3", &mut attributes).unwrap();
        taken.map(|backend| backend.notes().join("; "))
    };
    assert_eq!(
        notes("retry_mode=standard,retry_max_attempts=5"),
        Ok(String::new())
    );
    assert_eq!(notes("touch_refresh=1h"), Ok(String::new()));
    let error = notes("touch_refresh=soon").unwrap_err();
    assert_eq!(error, "invalid value for touch_refresh: \"soon\"");
    assert!(
        notes("retry_mode=adaptive")
            .unwrap()
            .contains("as with standard")
    );
    let refused = notes("retry_mode=never").unwrap_err();
    assert_eq!(refused, "retry_mode must be \"standard\" or \"adaptive\"");
    let refused = notes("retry_max_attempts=0").unwrap_err();
    assert_eq!(refused, "retry_max_attempts must be a positive integer");
}

#[test]
fn what_is_of_every_type_is_left_and_secrets_are_not_shown() {
    for (kind, text) in [
        (
            "s3",
            "bucket=b,region=r,access_key_id=i,secret_access_key=hush,session_token=hush,touch_refresh=1h,retry_mode=standard",
        ),
        (
            "azblob",
            "account_url=https://acc.blob.core.windows.net,secret_access_key=hush",
        ),
        ("gcs", "bucket=b,token=hush"),
        ("reapi", "url=grpcs://h:1,token=hush"),
    ] {
        let text = format!("{text},mode=max,timeout=1m");
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let mut attributes: BTreeMap<String, String> = pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let taken = Backend::take(kind, &mut attributes).unwrap().unwrap();
        let left: Vec<&str> = attributes.keys().map(String::as_str).collect();
        assert_eq!(left, ["mode", "timeout"], "{kind}");
        assert!(!format!("{taken:?}").contains("hush"), "{taken:?}");
    }
}
