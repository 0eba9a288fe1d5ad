//! Machines with configuration files of every kind, and what is made of them.

use std::path::Path;

use super::*;

/// Writes the files of a machine and returns what it knows.
fn machine(files: &[(&str, &str)], options: HostOptions) -> (tempfile::TempDir, Hosts) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let at = |name: &str| dir.path().join(name);
    let hosts = Hosts::new(HostOptions {
        files: HostFiles {
            certs_dirs: vec![at("user/certs.d"), at("certs.d")],
            registries_conf: vec![at("user/registries.conf"), at("registries.conf")],
            registries_conf_dirs: vec![at("user/registries.conf.d"), at("registries.conf.d")],
            buildkitd: vec![at("buildkitd.toml")],
            daemon: vec![at("daemon.json")],
        },
        ..options
    });
    (dir, hosts)
}

fn shown(hosts: &Hosts, name: &str, purpose: Purpose) -> String {
    let reference: Reference = name.parse().unwrap();
    let routes = match hosts.routes(&reference, purpose) {
        Ok(routes) => routes,
        Err(error) => return format!("error: {error}"),
    };
    let one = |route: &Route| {
        let mut text = match route.scheme {
            Some(scheme) => format!("{scheme}://"),
            None => String::new(),
        };
        text += &format!("{}/{}{}", route.host, route.root, route.repository);
        match route.insecure {
            Some(true) => text += " insecure",
            Some(false) => text += " secure",
            None => {}
        }
        if let Some(tls) = &route.tls {
            let (unchecked, authorities) = (tls.unchecked, tls.authorities.len());
            let identity = tls.identity.is_some();
            text += &format!(" tls({unchecked} {authorities} {identity})");
        }
        for (name, value) in &route.headers {
            text += &format!(" {name}={value}");
        }
        if route.is_mirror {
            text += " mirror";
        }
        text
    };
    let all: Vec<String> = routes.iter().map(one).collect();
    all.join(", ")
}

#[test]
fn registries_conf_says_where_to_look() {
    let conf = r#"
unqualified-search-registries = ["docker.io"]

[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.example/hub"
[[registry.mirror]]
location = "10.1.1.1:5000"
insecure = true
pull-from-mirror = "digest-only"

[[registry]]
prefix = "r.example/team"
location = "other.example/moved"
mirror-by-digest-only = true
[[registry.mirror]]
location = "near.example"

[[registry]]
prefix = "*.bad.example"
blocked = true

[[registry]]
location = "plain.example:5000"
insecure = true
"#;
    let (dir, hosts) = machine(&[("registries.conf", conf)], HostOptions::default());
    let conf = dir.path().join("registries.conf");
    let blocked = format!("error: a.bad.example/x is blocked by {}", conf.display());
    for (name, purpose, expected) in [
        (
            "debian:12",
            Purpose::Resolve,
            "mirror.example/v2/hub/library/debian mirror, docker.io/v2/library/debian",
        ),
        (
            "debian:12",
            Purpose::Fetch,
            "mirror.example/v2/hub/library/debian mirror, \
             10.1.1.1:5000/v2/library/debian insecure mirror, docker.io/v2/library/debian",
        ),
        ("me/app", Purpose::Push, "docker.io/v2/me/app"),
        (
            "r.example/team/app",
            Purpose::Resolve,
            "other.example/v2/moved/app",
        ),
        (
            "r.example/team/app",
            Purpose::Fetch,
            "near.example/v2/app mirror, other.example/v2/moved/app",
        ),
        ("r.example/team/app", Purpose::Push, "r.example/v2/team/app"),
        (
            "r.example/teamwork",
            Purpose::Fetch,
            "r.example/v2/teamwork",
        ),
        ("a.bad.example/x", Purpose::Fetch, blocked.as_str()),
        ("a.bad.example/x", Purpose::Push, blocked.as_str()),
        (
            "plain.example:5000/x",
            Purpose::Push,
            "plain.example:5000/v2/x insecure",
        ),
    ] {
        assert_eq!(shown(&hosts, name, purpose), expected, "{name} {purpose:?}");
    }
}

#[test]
fn later_files_of_a_folder_win_and_the_users_own_before_all() {
    let entry = |location: &str, mirror: &str| {
        format!(
            "[[registry]]\nlocation = \"{location}\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\n"
        )
    };
    let files = [
        ("registries.conf", entry("a.example", "base.example")),
        (
            "registries.conf.d/1.conf",
            entry("a.example", "one.example"),
        ),
        (
            "registries.conf.d/2.conf",
            entry("a.example", "two.example"),
        ),
        ("registries.conf.d/3.txt", entry("a.example", "no.example")),
        (
            "user/registries.conf.d/0.conf",
            entry("b.example", "mine.example"),
        ),
        (
            "registries.conf.d/b.conf",
            entry("b.example", "theirs.example"),
        ),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
    let (_dir, hosts) = machine(&files, HostOptions::default());
    assert_eq!(
        shown(&hosts, "a.example/x", Purpose::Fetch),
        "two.example/v2/x mirror, a.example/v2/x"
    );
    assert_eq!(
        shown(&hosts, "b.example/x", Purpose::Fetch),
        "mine.example/v2/x mirror, b.example/v2/x"
    );
}

#[test]
fn dockers_and_buildkits_files_count_too() {
    let daemon = r#"{"registry-mirrors": ["https://m.example/dir/", "http://127.0.0.1:5000"],
        "insecure-registries": ["lan:5000", "10.0.0.0/8"], "debug": true}"#;
    let buildkitd = r#"
debug = true
[registry."docker.io"]
  mirrors = ["bk.example/hub"]
[registry."bk.example"]
  http = true
[registry."tls.example"]
  insecure = true
"#;
    let (_dir, hosts) = machine(&[("daemon.json", daemon)], HostOptions::default());
    for (name, expected) in [
        (
            "debian",
            "m.example/dir/v2/library/debian mirror, \
             http://127.0.0.1:5000/v2/library/debian mirror, docker.io/v2/library/debian",
        ),
        ("lan:5000/x", "lan:5000/v2/x insecure"),
        ("10.2.3.4:5000/x", "10.2.3.4:5000/v2/x insecure"),
        ("11.2.3.4:5000/x", "11.2.3.4:5000/v2/x"),
    ] {
        assert_eq!(shown(&hosts, name, Purpose::Fetch), expected, "{name}");
    }
    let both = [("daemon.json", daemon), ("buildkitd.toml", buildkitd)];
    let (_dir, hosts) = machine(&both, HostOptions::default());
    for (name, expected) in [
        // The first file that has mirrors decides.
        (
            "debian",
            "http://bk.example/v2/hub/library/debian mirror, docker.io/v2/library/debian",
        ),
        ("bk.example/x", "http://bk.example/v2/x"),
        ("tls.example/x", "tls.example/v2/x insecure"),
        ("lan:5000/x", "lan:5000/v2/x insecure"),
    ] {
        assert_eq!(shown(&hosts, name, Purpose::Fetch), expected, "{name}");
    }
}

#[test]
fn hosts_toml_is_read_as_containerd_reads_it() {
    let toml = r#"
server = "https://registry-1.docker.io"

[host."https://first.example"]
  capabilities = ["pull", "resolve"]
  ca = "ca.crt"
  client = [["me.cert", "me.key"]]
  [host."https://first.example".header]
    x-team = ["a", "b"]

[host."http://again.example:5000/some/path"]
  capabilities = ["pull"]
  override_path = true

[host."https://proxy.example/hub"]
  capabilities = ["pull"]
  skip_verify = true
"#;
    let files = [
        ("certs.d/docker.io/hosts.toml", toml),
        ("certs.d/docker.io/ca.crt", "CA"),
        ("certs.d/docker.io/me.cert", "CERT"),
        ("certs.d/docker.io/me.key", "KEY"),
        (
            "certs.d/_default/hosts.toml",
            "[host.\"https://all.example\"]\n",
        ),
    ];
    let (_dir, hosts) = machine(&files, HostOptions::default());
    let own = "https://registry-1.docker.io/v2/library/debian";
    let first =
        "https://first.example/v2/library/debian tls(false 1 true) x-team=a x-team=b mirror";
    for (purpose, expected) in [
        (Purpose::Push, own.to_owned()),
        (Purpose::Resolve, format!("{first}, {own}")),
        (
            Purpose::Fetch,
            format!(
                "{first}, http://again.example:5000/some/path/library/debian mirror, \
                 https://proxy.example/hub/v2/library/debian tls(true 0 false) mirror, {own}"
            ),
        ),
    ] {
        assert_eq!(shown(&hosts, "debian", purpose), expected, "{purpose:?}");
    }
    assert_eq!(
        shown(&hosts, "r.example/x", Purpose::Resolve),
        "https://all.example/v2/x mirror, https://r.example/v2/x"
    );
}

#[test]
fn certificates_belong_to_a_host() {
    let files = [
        ("certs.d/r.example:5000/ca.crt", "CA"),
        ("certs.d/r.example:5000/client.cert", "CERT"),
        ("certs.d/r.example:5000/client.key", "KEY"),
        ("certs.d/r.example:5000/README", "x"),
        ("certs.d/half.example/client.cert", "CERT"),
        ("all/ca.crt", "CA"),
    ];
    let (dir, hosts) = machine(&files, HostOptions::default());
    for (name, expected) in [
        (
            "r.example:5000/x",
            "r.example:5000/v2/x secure tls(false 1 true)".to_owned(),
        ),
        ("r.example/x", "r.example/v2/x".to_owned()),
        (
            "half.example/x",
            format!(
                "error: {} cannot be used: it cannot be read",
                dir.path().join("certs.d/half.example/client.key").display()
            ),
        ),
    ] {
        assert_eq!(shown(&hosts, name, Purpose::Push), expected, "{name}");
    }
    let options = HostOptions {
        cert_dir: Some(dir.path().join("all")),
        ..HostOptions::default()
    };
    let typed = Hosts::new(options.clone());
    assert_eq!(
        shown(&typed, "half.example/x", Purpose::Push),
        "half.example/v2/x secure tls(false 1 false)"
    );
    let unchecked = Hosts::new(HostOptions {
        tls_verify: Some(false),
        ..options
    });
    assert_eq!(
        shown(&unchecked, "half.example/x", Purpose::Push),
        "half.example/v2/x insecure tls(false 1 false)"
    );
}

#[test]
fn typed_mirrors_come_first_and_are_not_written_to() {
    let options = HostOptions {
        mirrors: vec![("docker.io".to_owned(), "typed.example/hub".to_owned())],
        ..HostOptions::default()
    };
    let hosts = Hosts::new(options);
    assert_eq!(
        shown(&hosts, "debian", Purpose::Fetch),
        "typed.example/v2/hub/library/debian mirror, docker.io/v2/library/debian"
    );
    assert_eq!(
        shown(&hosts, "debian", Purpose::Push),
        "docker.io/v2/library/debian"
    );
}

#[test]
fn a_broken_file_is_named() {
    for (name, text, expected) in [
        (
            "registries.conf",
            "[[registry]]\n",
            "has neither prefix nor location",
        ),
        ("registries.conf", "[[registry", "cannot be used"),
        ("daemon.json", "{", "EOF while parsing"),
        (
            "daemon.json",
            r#"{"registry-mirrors":["x"]}"#,
            "is not a URL",
        ),
        ("buildkitd.toml", "registry = 1", "cannot be used"),
        (
            "certs.d/_default/hosts.toml",
            "[host.\"::\"]",
            "is not the URL of a host",
        ),
    ] {
        let (dir, hosts) = machine(&[(name, text)], HostOptions::default());
        let error = shown(&hosts, "r.example/x", Purpose::Fetch);
        let path = dir.path().join(Path::new(name)).display().to_string();
        assert!(error.contains(expected) && error.contains(&path), "{error}");
    }
}
