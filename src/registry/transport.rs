//! A request to a registry: credentials, one new token on a 401, tries with pauses.

use reqwest::Response;

use super::auth::Scopes;
use super::endpoint::Endpoint;
use super::http::{Failure, Request, same_origin};
use super::retry::{self, Tries};
use super::{Client, Error};

/// How often one request may be answered with 401 without ever having been welcome: once before
/// we know what is wanted, once because more is wanted than we knew.
pub(super) const CHALLENGES_MAX: u32 = 2;
/// How often the token of one request may come to its end; other requests use it up, too.
pub(super) const RENEWALS_MAX: u32 = 10;

impl Failure {
    /// Gives up.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Transient(error) | Self::Final(error) => error,
        }
    }
}

impl Request {
    /// Takes over what an endpoint wants in every request.
    pub(super) fn prepare(&mut self, endpoint: &Endpoint) {
        self.tls.clone_from(&endpoint.tls);
        for (name, value) in &endpoint.headers {
            self.headers.append(name, value.clone());
        }
    }
}

impl Client {
    /// Sends a request to a registry until there is an answer other than a transient failure.
    /// The status may still be one of refusal, but not 401.
    pub(super) async fn call(
        &self,
        endpoint: &Endpoint,
        mut request: Request,
        scopes: &Scopes,
    ) -> Result<Response, Error> {
        let mut scopes = scopes.clone();
        let mut tries = Tries::new(endpoint.retry(&self.shared.options.retry));
        let (mut challenges, mut renewals) = (0, 0);
        request.prepare(endpoint);
        let own = same_origin(&request.url, &endpoint.base);
        loop {
            request.authorization = match own {
                true => self.authorization(endpoint, &scopes, &request.what).await?,
                false => None,
            };
            let (error, asked) = match self.shared.http.try_once(&request).await {
                Ok(response) if response.status().as_u16() == 401 => {
                    let presented = request.authorization.as_ref();
                    match self.was_accepted(endpoint, presented) {
                        true => renewals += 1,
                        false => challenges += 1,
                    }
                    let ours = own && same_origin(response.url(), &endpoint.base);
                    if !ours || challenges > CHALLENGES_MAX || renewals > RENEWALS_MAX {
                        let error = self.shared.http.status_error(&request.what, response);
                        let detail = error.await.detail();
                        return Err(self.unauthorized(endpoint, &request.what, detail).await);
                    }
                    let headers = response.headers();
                    self.learn(endpoint, headers, presented, &mut scopes, &request.what)
                        .await?;
                    continue;
                }
                Ok(response) if retry::is_transient(response.status()) => {
                    let asked = retry::retry_after(response.headers());
                    let error = self.shared.http.status_error(&request.what, response);
                    (error.await, asked)
                }
                Ok(response) => {
                    self.note_accepted(endpoint, request.authorization.as_ref());
                    return Ok(response);
                }
                Err(Failure::Transient(error)) => (error, None),
                Err(Failure::Final(error)) => return Err(error),
            };
            if !tries.again(asked).await {
                return Err(error);
            }
        }
    }

    /// Turns an answer of a status nobody wanted into an error.
    pub(super) async fn refusal(&self, what: &str, response: Response) -> Error {
        self.shared.http.status_error(what, response).await
    }
}
