//! Tables of mounts and other values of RUN's flags.

use super::*;
use crate::frontend::dockerfile::run_value::{
    RunNetwork, RunSecurity, parse_device, parse_network, parse_security,
};

/// One line for what a mount says, or why it is refused.
fn outcome(text: &str) -> String {
    match parse_mount(text) {
        Ok(spec) => format!("{} {:?}", spec.target.as_deref().unwrap_or("-"), spec.kind),
        Err(error) => match error.help {
            Some(help) => format!("error [{}]: {}; {help}", error.field, error.message),
            None => format!("error [{}]: {}", error.field, error.message),
        },
    }
}

#[test]
fn reads_mounts() {
    let rows = [
        (
            "type=bind,source=a,target=/b",
            "/b Bind { from: None, source: Some(\"a\"), read_only: true }",
        ),
        (
            "target=/b,from=base,rw,ro=false",
            "/b Bind { from: Some(\"base\"), source: None, read_only: false }",
        ),
        (
            "env=A,id=b",
            "- Bind { from: None, source: None, read_only: true }",
        ),
        (
            "type=tmpfs,dst=/t,size=1.5k",
            "/t Tmpfs { size_bytes: Some(1536), read_only: false }",
        ),
        (
            "type=tmpfs,size=2MiB",
            "- Tmpfs { size_bytes: Some(2097152), read_only: false }",
        ),
        (
            "type=CACHE,Target=/c,sharing=Locked,id=x,mode=0700,uid=1,gid=2",
            "/c Cache(CacheMount { id: Some(\"x\"), from: None, source: None, \
             read_only: false, sharing: Locked, \
             owner: FileOwner { mode: Some(448), uid: Some(1), gid: Some(2) } })",
        ),
        (
            "type=secret,src=s,env=S,required",
            "- Secret(SecretMount { id: Some(\"s\"), env: Some(\"S\"), required: true, \
             owner: FileOwner { mode: None, uid: None, gid: None } })",
        ),
        (
            "type=ssh,required=true",
            "- Ssh { id: None, required: true, \
             owner: FileOwner { mode: None, uid: None, gid: None } }",
        ),
        (
            "\"source=a,b\",\"target=/\"\"x\"",
            "/\"x Bind { from: None, source: Some(\"a,b\"), read_only: true }",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(outcome(text), expected, "{text}");
    }
}

#[test]
fn refuses_mounts_that_mean_nothing() {
    let rows = [
        (
            "type=bnd",
            "error [type=bnd]: unknown mount type `bnd`; did you mean `bind`?",
        ),
        (
            "type=volume",
            "error [type=volume]: unknown mount type `volume`; \
             it can be bind, cache, tmpfs, secret, ssh",
        ),
        (
            "traget=/x",
            "error [traget=/x]: unknown key `traget` in a mount; did you mean `target`?",
        ),
        (
            "type=bind,bind-propagation=rshared",
            "error [bind-propagation=rshared]: unknown key `bind-propagation` in a mount; \
             mounts of a step are always private; leave it out",
        ),
        (
            "target",
            "error [target]: `target` needs a value; write `target=…`",
        ),
        (
            "ro=maybe",
            "error [ro=maybe]: `maybe` is neither true nor false; \
             write `true` or `false`, or the key alone for true",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(outcome(text), expected, "{text}");
    }
}

#[test]
fn refuses_keys_that_mean_nothing_for_the_type() {
    let rows = [
        (
            "size=2MiB,type=tmpfs",
            "error [size=2MiB]: `size` has no meaning on a bind mount; \
             it belongs behind `type=tmpfs`",
        ),
        (
            "required,type=secret,id=a",
            "error [required]: `required` has no meaning on a bind mount; \
             it belongs behind `type=secret` or `type=ssh`",
        ),
        (
            "sharing=locked,target=/x",
            "error [sharing=locked]: `sharing` has no meaning on a bind mount; \
             it belongs behind `type=cache`",
        ),
        (
            "mode=0755",
            "error [mode=0755]: `mode` has no meaning on a bind mount; \
             it belongs behind `type=cache`, `type=secret` or `type=ssh`",
        ),
        (
            "type=ssh,source=/x",
            "error []: an ssh mount has no `source`; \
             agents come from the command line: name one with `id=…`",
        ),
        (
            "type=cache,mode=rwx",
            "error [mode=rwx]: `rwx` is not an octal mode; write for example `mode=0755`",
        ),
        (
            "type=cache,uid=bob",
            "error [uid=bob]: `bob` is not a number; \
             `uid` takes a number; names are not looked up here",
        ),
        (
            "type=tmpfs,size=big",
            "error [size=big]: `big` is not a size; \
             write a number with a unit, for example `size=64m`",
        ),
        (
            "type=secret",
            "error []: a secret mount does not say which secret; name it with `id=…`",
        ),
        (
            "target=/x,",
            "error []: an empty field in a list; take the extra comma out",
        ),
        ("\"target=/x", "error []: a quote in a list is never closed"),
    ];
    for (text, expected) in rows {
        assert_eq!(outcome(text), expected, "{text}");
    }
}

#[test]
fn a_comma_in_a_variable_makes_no_field() {
    let spec = parse_mount_with("target=/x,source=$A", &mut |value| {
        Ok(value.replace("$A", "a,ro=false"))
    });
    let expected = MountKind::Bind {
        from: None,
        source: Some("a,ro=false".to_owned()),
        read_only: true,
    };
    assert_eq!(spec.unwrap().kind, expected);
    // What no stage needs is not read; what is not even a list is refused everywhere.
    assert!(check_mount("target=$A,soruce=$B").is_ok());
    assert!(check_mount("\"target=$A").is_err());
}

#[test]
fn reads_devices_and_modes() {
    let device = |text| parse_device(text).map(|device| (device.name, device.required));
    assert_eq!(
        device("vendor.com/gpu=all").unwrap(),
        ("vendor.com/gpu=all".to_owned(), false)
    );
    assert_eq!(
        device("name=a.b/c,required").unwrap(),
        ("a.b/c".to_owned(), true)
    );
    assert_eq!(
        device("a/b,reqired=true").unwrap_err().help.unwrap(),
        "did you mean `required`?"
    );
    assert!(device("required").is_err() && device("name=a,name=b").is_err());
    assert_eq!(parse_network("none"), Ok(RunNetwork::None));
    assert_eq!(parse_security("insecure"), Ok(RunSecurity::Insecure));
    assert_eq!(
        parse_network("hots").unwrap_err().help.as_deref(),
        Some("did you mean `host`?")
    );
}

#[test]
fn reads_sizes() {
    let rows = [
        ("0", Some(0)),
        ("10", Some(10)),
        ("10b", Some(10)),
        ("1k", Some(1024)),
        ("1 KB", Some(1024)),
        ("0.5GiB", Some(536_870_912)),
        ("17179869184g", None),
        ("1.2.3m", None),
        ("m", None),
        ("-1", None),
        ("1x", None),
        ("1.", None),
    ];
    for (text, expected) in rows {
        assert_eq!(parse_size(text), expected, "{text}");
    }
}
