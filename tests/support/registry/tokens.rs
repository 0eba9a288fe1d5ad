//! Who may come in: passwords and tokens.

use std::net::SocketAddr;
use std::time::Duration;

use super::connection::{Answer, Incoming};
use super::routes::parse_query;
use super::{Access, State};

/// Answers who may not come in.
pub(super) fn refuse(state: &mut State, request: &Incoming, address: SocketAddr) -> Option<Answer> {
    let given = request.logged.header("authorization").unwrap_or_default();
    let refused = |challenge: String| {
        let answer = Answer::error(401, "UNAUTHORIZED", "authentication required");
        Some(answer.header("WWW-Authenticate", challenge))
    };
    match state.access.clone() {
        Access::Open => None,
        Access::Basic { username, password } => {
            if given == basic(&username, &password) {
                return None;
            }
            refused("Basic realm=\"test\"".to_owned())
        }
        Access::Bearer { realm, uses, .. } => {
            let scope = needed_scope(request);
            let token = given.strip_prefix("Bearer ").unwrap_or_default();
            let life = state.token_life.unwrap_or(Duration::MAX);
            let now = state.now();
            if let Some((scopes, used, born)) = state.tokens.get_mut(token)
                && *used < uses
                && now.duration_since(*born) < life
                && allows(scopes, &scope)
            {
                *used += 1;
                return None;
            }
            let realm = realm.unwrap_or_else(|| format!("http://{address}/token"));
            refused(format!(
                "Bearer realm=\"{realm}\",service=\"test\",scope=\"{scope}\""
            ))
        }
    }
}

fn needed_scope(request: &Incoming) -> String {
    let rest = request.logged.path.trim_start_matches("/v2/");
    let parts = ["/blobs/", "/manifests/", "/tags/"];
    let end = parts.iter().find_map(|part| rest.find(part));
    let repository = &rest[..end.unwrap_or(rest.len())];
    let actions = match request.logged.method.as_str() {
        "GET" | "HEAD" => "pull",
        _ => "pull,push",
    };
    format!("repository:{repository}:{actions}")
}

fn allows(scopes: &str, needed: &str) -> bool {
    let (name, actions) = needed.rsplit_once(':').unwrap();
    scopes.split(' ').any(|scope| {
        let Some((n, granted)) = scope.rsplit_once(':') else {
            return false;
        };
        n == name
            && actions
                .split(',')
                .all(|a| granted.split(',').any(|g| g == a))
    })
}

fn basic(username: &str, password: &str) -> String {
    use base64::Engine as _;
    let text = format!("{username}:{password}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    format!("Basic {encoded}")
}

/// Gives a token to who may have one.
pub(super) fn token(state: &mut State, request: &Incoming) -> Answer {
    let Access::Bearer {
        login,
        refresh,
        expires_in,
        ..
    } = state.access.clone()
    else {
        return Answer::new(404);
    };
    let form = String::from_utf8_lossy(&request.body).into_owned();
    let fields = match request.logged.method.as_str() {
        "POST" => parse_query(&form),
        _ => parse_query(&request.logged.query),
    };
    let given = request.logged.header("authorization").unwrap_or_default();
    let welcome = match (&login, &refresh) {
        (None, None) => true,
        (Some((user, password)), _) if given == basic(user, password) => true,
        (_, Some(refresh)) => fields.contains(&("refresh_token".to_owned(), refresh.clone())),
        _ => false,
    };
    if !welcome {
        return Answer::error(401, "UNAUTHORIZED", "incorrect username or password");
    }
    let scopes: Vec<&str> = fields
        .iter()
        .filter(|(name, _)| name == "scope")
        .map(|(_, value)| value.as_str())
        .collect();
    state.next_id += 1;
    let token = format!("token-{}", state.next_id);
    let entry = (scopes.join(" "), 0, state.now());
    state.tokens.insert(token.clone(), entry);
    let mut body = serde_json::json!({"token": token});
    if let Some(seconds) = expires_in {
        body["expires_in"] = seconds.into();
    }
    Answer::new(200).body(body.to_string())
}
