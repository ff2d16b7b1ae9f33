// SPDX-License-Identifier: Apache-2.0
//! The server that is tested, as a client sees it: one call for each connection, and no more HTTP than that takes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// How much longer than the call itself an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where the server listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    /// Its address.
    pub(crate) address: SocketAddr,
}

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The server refused or could not do it.
    #[error("{}", .0.text)]
    Refused(Refusal),
    /// No answer came.
    #[error("the server does not answer: {0}")]
    Broken(#[from] io::Error),
}

/// What the server says when it refuses.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Why, in words.
    pub(crate) text: String,
    /// Whether a command's time was up.
    pub(crate) timed_out: bool,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its standard output.
    pub(crate) output: String,
    /// Its standard error.
    pub(crate) error: String,
    /// Whether it exited with 0.
    pub(crate) success: bool,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
}

impl Client {
    /// Starts a sandbox.
    pub(crate) fn start(&self, name: &str, config: &Value) -> Result<(), CallError> {
        self.call("sandbox.start", json!({"sandbox": name, "namespace": NAMESPACE, "config": config}), 60)?;
        Ok(())
    }

    /// Stops a sandbox.
    pub(crate) fn stop(&self, name: &str) -> Result<(), CallError> {
        self.call("sandbox.stop", json!({"sandbox": name, "namespace": NAMESPACE}), 60)?;
        Ok(())
    }

    /// Runs a program and waits for its end.
    pub(crate) fn command(&self, name: &str, words: &[&str], seconds: u64) -> Result<Ran, CallError> {
        let (program, arguments) = words.split_first().unwrap_or((&"", &[]));
        let params = json!({
            "sandbox": name, "namespace": NAMESPACE, "command": program, "args": arguments, "timeout": seconds,
        });
        let result = self.call("sandbox.command.run", params, seconds)?;
        let stream = |wanted: &str| {
            let lines = result["output"].as_array().map(Vec::as_slice).unwrap_or_default();
            let own = lines.iter().filter(|line| line["stream"] == wanted);
            own.filter_map(|line| line["text"].as_str()).collect::<Vec<&str>>().join("\n")
        };
        Ok(Ran {
            output: stream("stdout"),
            error: stream("stderr"),
            success: result["success"] == true,
            signal: result["signal"].as_i64().and_then(|signal| i32::try_from(signal).ok()),
        })
    }

    /// Asks what all sandboxes use; how many run.
    pub(crate) fn metrics(&self) -> Result<usize, CallError> {
        let result = self.call("sandbox.metrics.get", json!({"namespace": NAMESPACE}), 30)?;
        let all = result["sandboxes"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(all.iter().filter(|sandbox| sandbox["running"] == true).count())
    }

    /// Says whether a protection of a sandbox is on, or why it is not.
    pub(crate) fn protection(&self, name: &str, protection: &str) -> Result<Result<(), String>, CallError> {
        let asked = self.call("sandbox.get", json!({"sandbox": name, "namespace": NAMESPACE}), 10);
        let result = match asked {
            Ok(result) => result,
            Err(CallError::Refused(_)) => return Ok(Err("this server tells of no protections".to_owned())),
            Err(broken) => return Err(broken),
        };
        let all = result["isolation"]["protections"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(match all.iter().find(|one| one["name"] == protection) {
            Some(one) if one["on"] == true => Ok(()),
            Some(one) => Err(one["why"].as_str().unwrap_or("it is off").to_owned()),
            None => Err(format!("this server has no {protection}")),
        })
    }

    fn call(&self, method: &str, params: Value, seconds: u64) -> Result<Value, CallError> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let request = format!(
            "POST /api/v1/rpc HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut answer = self.exchange(&request, Duration::from_secs(seconds) + ANSWER_WAIT)?;
        let error = answer["error"].take();
        if error.is_null() {
            return Ok(answer["result"].take());
        }
        let text = error.as_str().or_else(|| error["message"].as_str()).unwrap_or("no reason").to_owned();
        let flag = |of: &Value| of["timed_out"] == true;
        let timed_out = flag(&answer) || flag(&error) || flag(&error["data"]);
        Err(CallError::Refused(Refusal { text, timed_out }))
    }

    fn exchange(&self, request: &str, wait: Duration) -> io::Result<Value> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_WAIT)?;
        stream.set_read_timeout(Some(wait))?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        serde_json::from_str(body).map_err(io::Error::from)
    }
}

/// The namespace of the sandboxes.
const NAMESPACE: &str = "selftest";
