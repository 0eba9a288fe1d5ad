//! Proxies that docker's `config.json` has for containers: they become build arguments.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::env::Environment;

/// Members of a proxy configuration and the build arguments they become.
const ARGUMENTS: [(&str, &str); 4] = [
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
];
/// The daemon whose proxies count where `DOCKER_HOST` names none.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// The entry for all other daemons.
const DEFAULT: &str = "default";

/// Adds the configured proxies to the build arguments that name none in either case.
pub(crate) fn add(arguments: &mut BTreeMap<String, String>, environment: &Environment) {
    let Some(folder) = environment.docker_config() else {
        return;
    };
    // Who reads credentials from the same file tells what is wrong with it.
    let text = std::fs::read_to_string(Path::new(&folder).join("config.json"));
    let Some(config) = text.ok().and_then(|text| serde_json::from_str(&text).ok()) else {
        return;
    };
    let host = environment
        .text("DOCKER_HOST")
        .filter(|host| !host.is_empty());
    add_from(arguments, &config, host.as_deref().unwrap_or(DEFAULT_HOST));
}

fn add_from(arguments: &mut BTreeMap<String, String>, config: &Value, host: &str) {
    let proxies = &config["proxies"];
    let proxy = match &proxies[host] {
        Value::Null => &proxies[DEFAULT],
        proxy => proxy,
    };
    for (member, name) in ARGUMENTS {
        let value = proxy[member].as_str().filter(|value| !value.is_empty());
        let is_given = arguments
            .keys()
            .any(|known| known.eq_ignore_ascii_case(name));
        if let Some(value) = value
            && !is_given
        {
            arguments.insert(name.to_owned(), value.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_proxies_become_arguments_unless_given() {
        let config: Value = serde_json::from_str(
            r#"{"proxies": {
                "default": {"httpProxy": "http://p:1", "httpsProxy": "http://p:2", "noProxy": "x"},
                "tcp://there": {"ftpProxy": "ftp://f"}}}"#,
        )
        .unwrap();
        let given = [("http_proxy", "mine"), ("A", "b")];
        let arguments = |host: &str, config: &Value| {
            let given = given
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let mut arguments: BTreeMap<String, String> = given.collect();
            add_from(&mut arguments, config, host);
            let shown = arguments.iter().map(|(k, v)| format!("{k}={v}"));
            shown.collect::<Vec<_>>().join(" ")
        };
        for (host, config, expected) in [
            (
                DEFAULT_HOST,
                &config,
                "A=b HTTPS_PROXY=http://p:2 NO_PROXY=x http_proxy=mine",
            ),
            (
                "tcp://there",
                &config,
                "A=b FTP_PROXY=ftp://f http_proxy=mine",
            ),
            (DEFAULT_HOST, &Value::Null, "A=b http_proxy=mine"),
        ] {
            assert_eq!(arguments(host, config), expected, "{host}");
        }
    }
}
