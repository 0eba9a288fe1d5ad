//! `EXPOSE`: ports, ranges and protocols.

use super::{Lowerer, Lowering, StageState};
use crate::frontend::diagnostic::{Diagnostic, Span};
use crate::frontend::dockerfile::Word;
use crate::frontend::expand::Expander;
use crate::frontend::image_config::go_list;
use crate::frontend::lint;
use crate::oci::Empty;

impl Lowerer<'_> {
    /// `EXPOSE`
    pub(super) fn expose(&mut self, state: &mut StageState, words: &[Word]) -> Lowering<()> {
        let mut ports = Vec::new();
        // The order of the words, before variables are replaced, shows in the history.
        let mut words: Vec<&Word> = words.iter().collect();
        words.sort_by(|a, b| a.raw.cmp(&b.raw));
        for word in words {
            let expander = Expander::new(self.plan.escape);
            let expanded = expander.words(&word.raw, &state.environment);
            let expanded = expanded.map_err(|error| Box::new(error.diagnostic(word)))?;
            for text in &expanded.value {
                ports.extend(self.ports(text, word.span)?);
            }
        }
        let text = format!("EXPOSE {}", go_list(&ports));
        let exposed = state.image.config.exposed_ports.get_or_insert_default();
        exposed.extend(ports.into_iter().map(|port| (port, Empty {})));
        self.commit(state, text);
        Ok(())
    }

    fn ports(&mut self, text: &str, span: Span) -> Lowering<Vec<String>> {
        let spec = PortSpec::parse(text).map_err(|reason| {
            let message = format!("{text:?} is not a port: {reason}");
            Box::new(Diagnostic::error(span, message))
        })?;
        if spec.has_odd_case {
            self.warnings.push(lint::expose_protocol_casing(text, span));
        }
        if spec.names_host {
            self.warnings.push(lint::expose_format(text, span));
        }
        let PortSpec {
            first,
            last,
            protocol,
            ..
        } = spec;
        Ok((first..=last)
            .map(|port| format!("{port}/{protocol}"))
            .collect())
    }
}

/// `[[address:]host port:]port[-port][/protocol]`
#[derive(Debug)]
struct PortSpec {
    first: u16,
    last: u16,
    protocol: String,
    has_odd_case: bool,
    names_host: bool,
}

impl PortSpec {
    fn parse(text: &str) -> Result<Self, String> {
        let (host, container) = match text.rsplit_once(':') {
            Some((host, container)) => (Some(host), container),
            None => (None, text),
        };
        let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
        let lower = protocol.to_lowercase();
        if !["", "tcp", "udp", "sctp"].contains(&lower.as_str()) {
            return Err(format!("the protocol {protocol:?} is not tcp, udp or sctp"));
        }
        let (first, last) = range(port)?;
        if let Some(host) = host {
            check_host(host, first, last)?;
        }
        Ok(Self {
            first,
            last,
            has_odd_case: protocol != lower,
            protocol: if lower.is_empty() {
                "tcp".to_owned()
            } else {
                lower
            },
            names_host: host.is_some_and(|host| host.bytes().any(|byte| byte != b':')),
        })
    }
}

/// Checks `[address:]port[-port]`, which is accepted without having any effect.
fn check_host(text: &str, first: u16, last: u16) -> Result<(), String> {
    let (address, port) = match text.rsplit_once(':') {
        Some((address, port)) => (address, port),
        None => ("", text),
    };
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let bare = bare.unwrap_or(address);
    if !bare.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("{bare:?} is not an address"));
    }
    if port.is_empty() {
        return Ok(());
    }
    let (host_first, host_last) = range(port)?;
    if first != last && host_last - host_first != last - first {
        return Err("the ranges differ in length".to_owned());
    }
    Ok(())
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| {
        // As in Go, a plus may stand before the digits.
        text.parse::<u16>()
            .map_err(|_| format!("{text:?} is not a number from 0 to 65535"))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err("the range ends before it begins".to_owned());
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_ranges_and_protocols() {
        for (text, expected) in [
            ("80", "80-80/tcp"),
            ("80/UDP", "80-80/udp"),
            ("+80", "80-80/tcp"),
            ("8000-8002/sctp", "8000-8002/sctp"),
            ("127.0.0.1:80:8080", "8080-8080/tcp"),
            ("[::1]::8080", "8080-8080/tcp"),
            ("8080:80", "80-80/tcp"),
        ] {
            let spec = PortSpec::parse(text).unwrap();
            let found = format!("{}-{}/{}", spec.first, spec.last, spec.protocol);
            assert_eq!(found, expected, "{text}");
        }
        for bad in [
            "", "x", "80/x", "81-80", "65536", "-1", "+-1", "x:80:80", "1-2:1-3", "/tcp",
        ] {
            assert!(PortSpec::parse(bad).is_err(), "{bad:?}");
        }
    }
}
