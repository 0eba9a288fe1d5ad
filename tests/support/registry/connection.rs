//! A connection: requests are read, go wrong where they are to, and are answered.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::faults::{Action, Fault, Trouble};
use super::routes::respond;
use super::tokens::refuse;
use super::{Logged, State};

pub(super) struct Connection {
    pub(super) address: SocketAddr,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) stream: TcpStream,
}

pub(super) struct Incoming {
    pub(super) logged: Logged,
    pub(super) body: Vec<u8>,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Arc<Vec<u8>>,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Arc::default(),
        }
    }

    pub(super) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(super) fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Arc::new(bytes.into());
        self
    }

    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
        Self::new(status)
            .header("Content-Type", "application/json")
            .body(body.to_string())
    }
}

impl Connection {
    pub(super) fn serve(&mut self, stop: &AtomicBool) -> std::io::Result<()> {
        let mut reader = BufReader::new(self.stream.try_clone()?);
        while !stop.load(Ordering::Acquire) {
            let Some(head) = read_head(&mut reader)? else {
                return Ok(());
            };
            let fault = self.take_fault(&head);
            let length: usize = head
                .header("content-length")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            if let Some(Action::CutUploadAfter(kept)) = fault {
                let mut part = vec![0; kept.min(length)];
                reader.read_exact(&mut part)?;
                self.log(&head, part.len());
                let id = head.path.rsplit('/').next().unwrap().to_owned();
                let mut state = self.state.lock().unwrap();
                state.uploads.entry(id).or_default().extend(part);
                return Ok(());
            }
            match self.trouble(&head, length) {
                None => {}
                Some(Trouble::Refused(status, headers)) => {
                    self.log(&head, 0);
                    let answer = Action::Status(status, headers, String::new());
                    let request = Incoming {
                        logged: head,
                        body: Vec::new(),
                    };
                    let open = self.answer(&request, Some(answer))?;
                    if open && length == 0 {
                        continue;
                    }
                    return Ok(());
                }
                Some(Trouble::Cut { bytes, keep }) => {
                    let mut part = vec![0; bytes];
                    reader.read_exact(&mut part)?;
                    self.log(&head, part.len());
                    let id = head.path.rsplit('/').next().unwrap().to_owned();
                    let mut state = self.state.lock().unwrap();
                    match state.uploads.get_mut(&id) {
                        Some(upload) if keep => upload.extend(part),
                        _ if bytes > 0 => drop(state.uploads.remove(&id)),
                        _ => {}
                    }
                    return Ok(());
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            self.log(&head, length);
            let request = Incoming { logged: head, body };
            if !self.answer(&request, fault)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Says whether a request goes wrong before its body is read.
    fn trouble(&self, head: &Logged, length: usize) -> Option<Trouble> {
        let mut state = self.state.lock().unwrap();
        if length > state.body_bytes_max {
            return Some(Trouble::Refused(413, Vec::new()));
        }
        if let Some(trouble) = state.chaos.as_mut().and_then(|chaos| chaos.fault(length)) {
            return Some(trouble);
        }
        if length == 0 || !head.path.starts_with("/v2/") {
            return None;
        }
        // Who may not come in is not listened to.
        let request = Incoming {
            logged: head.clone(),
            body: Vec::new(),
        };
        let refusal = refuse(&mut state, &request, self.address)?;
        let challenge = refusal.headers.iter();
        let challenge = challenge.filter(|(name, _)| name == "WWW-Authenticate");
        let headers = challenge.map(|(_, value)| ("WWW-Authenticate", value.clone()));
        Some(Trouble::Refused(401, headers.collect()))
    }

    fn log(&self, head: &Logged, body_bytes: usize) {
        let mut entry = head.clone();
        entry.body_bytes = body_bytes;
        let mut state = self.state.lock().unwrap();
        let step = state.ahead_per_request;
        state.ahead += step;
        state.log.push((Instant::now(), entry));
    }

    fn take_fault(&self, head: &Logged) -> Option<Action> {
        let mut state = self.state.lock().unwrap();
        let fits = |f: &Fault| f.method == head.method && head.path.contains(f.part);
        let at = state.faults.iter().position(fits)?;
        let action = state.faults[at].action.clone();
        state.faults[at].times -= 1;
        if state.faults[at].times == 0 {
            state.faults.remove(at);
        }
        Some(action)
    }

    /// Answers; says whether the connection stays open.
    fn answer(&mut self, request: &Incoming, fault: Option<Action>) -> std::io::Result<bool> {
        let mut cut = None;
        let mut request = Incoming {
            logged: request.logged.clone(),
            body: request.body.clone(),
        };
        if let Some(Action::IgnoreRange) = fault {
            request.logged.headers.remove("range");
        }
        let mut answer = match &fault {
            Some(Action::Status(status, headers, body)) => {
                let mut answer = Answer::new(*status).body(body.as_bytes());
                for (name, value) in headers {
                    answer = answer.header(name, value);
                }
                answer
            }
            _ => respond(&mut self.state.lock().unwrap(), &request, self.address),
        };
        match fault {
            Some(Action::Hang) => return Ok(false),
            Some(Action::CutAfter(bytes)) => cut = Some(bytes),
            Some(Action::Wait(time)) => std::thread::sleep(time),
            Some(Action::WrongBytes) => {
                let mut bytes = answer.body.to_vec();
                bytes[0] ^= 1;
                answer.body = Arc::new(bytes);
            }
            Some(Action::Shorter) => {
                let mut bytes = answer.body.to_vec();
                bytes.pop();
                answer.body = Arc::new(bytes);
            }
            Some(Action::Header(name, value)) => {
                answer
                    .headers
                    .retain(|(n, _)| !n.eq_ignore_ascii_case(name));
                answer = answer.header(name, value);
            }
            _ => {}
        }
        let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if answer.status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes())?;
        if request.logged.method == "HEAD" {
            return Ok(true);
        }
        match cut {
            Some(bytes) => {
                self.stream
                    .write_all(&answer.body[..bytes.min(answer.body.len())])?;
                Ok(false)
            }
            None => {
                self.stream.write_all(&answer.body)?;
                Ok(true)
            }
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<Logged>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next())
    else {
        return Ok(None);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut head = Logged {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: BTreeMap::new(),
        body_bytes: 0,
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some(head));
        };
        let name = name.to_lowercase();
        head.headers.insert(name, value.trim().to_owned());
    }
}
