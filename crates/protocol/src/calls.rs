// SPDX-License-Identifier: Apache-2.0
//! The whole API in one type: what a client can ask, and what it gets.
//!
//! [`parse`] turns a method name and its parameters into a [`Call`]. It checks types and names, so that what comes after
//! cannot meet a malformed one; what depends on the machine (how much memory there is) is not known here. Unknown keys
//! are ignored. The results are plain serde types.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agent::Language;
use crate::names::{NameError, NamespaceName, SandboxName};
use crate::params::{Params, ParamsError};

/// One call, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `sandbox.start`
    Start(Start),
    /// `sandbox.stop`
    Stop(Target),
    /// `sandbox.repl.run`
    Run(Run),
    /// `sandbox.command.run`, and its older name `sandbox.command.execute`
    Command(Command),
    /// `sandbox.metrics.get`, and its older name `sandbox.getStatus`
    Metrics(Metrics),
}

/// The sandbox that a call is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name there.
    pub sandbox: SandboxName,
}

/// Parameters of `sandbox.start`.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// The sandbox.
    pub target: Target,
    /// What it shall be; all empty when the client sent none.
    pub config: Config,
    /// How long the start may take, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// What a client asks a sandbox to be; the ranges are not checked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The image's name.
    pub image: Option<String>,
    /// Memory in MiB.
    pub memory: Option<u32>,
    /// Processors, in thousandths of one.
    pub cpu_millis: Option<u32>,
    /// `host:guest` volumes.
    pub volumes: Vec<String>,
    /// `host:guest` ports.
    pub ports: Vec<String>,
    /// Environment variables; a later one wins.
    pub envs: Vec<(String, String)>,
    /// The directory in which kernels and commands start.
    pub workdir: Option<String>,
}

/// Parameters of `sandbox.repl.run`.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The sandbox.
    pub target: Target,
    /// The language, as an engine.
    pub language: Language,
    /// The language as the client called it; the answer calls it the same.
    pub language_name: String,
    /// The source.
    pub code: String,
    /// Seconds after which the execution is ended.
    pub timeout_s: Option<u64>,
}

/// Parameters of `sandbox.command.run`.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// The sandbox.
    pub target: Target,
    /// The program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Seconds after which the process tree is killed.
    pub timeout_s: Option<u64>,
}

/// Parameters of `sandbox.metrics.get`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// Where to look.
    pub scope: Scope,
    /// One sandbox, or all of the scope.
    pub sandbox: Option<SandboxName>,
}

/// The namespaces that a question is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Scope {
    /// `*`: all of them.
    All,
    /// This one.
    One(NamespaceName),
}

/// Result of `sandbox.repl.run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// How the execution ended.
    pub status: RunStatus,
    /// The language as the client called it.
    pub language: String,
    /// What the execution printed.
    pub output: Vec<OutputLine>,
    /// Whether output was left out because there was too much.
    #[serde(default, skip_serializing_if = "is_false")]
    pub truncated: bool,
    /// What threads and children printed between the execution before and this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub background_output: Vec<OutputLine>,
}

/// How an execution ended, as clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// To its end.
    Success,
    /// The code raised.
    Error,
    /// Its time was up.
    Timeout,
    /// Interrupted from outside.
    Interrupted,
    /// The interpreter was killed because the sandbox's memory was full.
    OutOfMemory,
    /// The interpreter died.
    Crashed,
}

/// Result of `sandbox.command.run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The program, as asked for.
    pub command: String,
    /// Its arguments, as asked for.
    pub args: Vec<String>,
    /// Its exit code; 1 when a signal ended it.
    pub exit_code: i32,
    /// Whether it exited with 0.
    pub success: bool,
    /// What it printed.
    pub output: Vec<OutputLine>,
    /// Whether output was left out because there was too much.
    #[serde(default, skip_serializing_if = "is_false")]
    pub truncated: bool,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the sandbox's memory was full while it ran and the kernel killed for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub out_of_memory: bool,
}

/// One line of output, without its newline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputLine {
    /// Where it came from.
    pub stream: Stream,
    /// Its text.
    pub text: String,
}

/// The two streams of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Result of `sandbox.metrics.get`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsResult {
    /// One entry for each sandbox.
    pub sandboxes: Vec<SandboxMetrics>,
}

/// What one sandbox uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxMetrics {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub running: bool,
    /// Percent of one core, over the last sample.
    pub cpu_usage: Option<f64>,
    /// MiB, rounded up.
    pub memory_usage: Option<u64>,
    /// Bytes of the writable layer.
    pub disk_usage: Option<u64>,
}

/// Why a method and its parameters are no call.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ParseError {
    /// No method of that name.
    #[error("Method not found: {0}")]
    Method(String),
    /// A parameter is missing or wrong.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// A name breaks the rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// `*` where one namespace is needed.
    #[error("Wildcard namespace (*) is not valid for {0}")]
    Wildcard(&'static str),
}

/// The methods there are, for the texts of errors.
pub const METHODS: [&str; 5] =
    ["sandbox.start", "sandbox.stop", "sandbox.repl.run", "sandbox.command.run", "sandbox.metrics.get"];

/// The languages there are, as clients call them.
const LANGUAGES: [(&str, Language); 4] = [
    ("python", Language::Python),
    ("nodejs", Language::Node),
    ("node", Language::Node),
    ("javascript", Language::Node),
];

const NAMES_NEEDED: &str = "Request parameters must be an object containing 'sandbox' and 'namespace'";

/// Turns a method and its parameters into a call.
///
/// # Errors
/// [`ParseError`] naming the parameter, what was wrong with it and what is allowed.
pub fn parse(method: &str, params: &Value) -> Result<Call, ParseError> {
    match method {
        "sandbox.start" => start(&Params::object(params, NAMES_NEEDED)?).map(Call::Start),
        "sandbox.stop" => {
            target(&Params::object(params, NAMES_NEEDED)?, "stopping a sandbox").map(Call::Stop)
        }
        "sandbox.repl.run" => run(&Params::object(params, NAMES_NEEDED)?).map(Call::Run),
        "sandbox.command.run" | "sandbox.command.execute" => {
            command(&Params::object(params, NAMES_NEEDED)?).map(Call::Command)
        }
        "sandbox.metrics.get" | "sandbox.getStatus" => {
            let needed = "Request parameters must be an object containing 'namespace'";
            metrics(&Params::object(params, needed)?).map(Call::Metrics)
        }
        other => Err(ParseError::Method(other.to_owned())),
    }
}

fn target(params: &Params<'_>, act: &'static str) -> Result<Target, ParseError> {
    let sandbox = SandboxName::parse(params.text("sandbox")?)?;
    let namespace = one_namespace(params.text("namespace")?, act)?;
    Ok(Target { namespace, sandbox })
}

/// Reads the target of a call that goes to a sandbox itself, with the texts that published clients know.
fn guest_target(params: &Params<'_>, namespace: Option<&str>) -> Result<Target, ParseError> {
    let missing = |key| ParamsError::MissingForPortal { key };
    let sandbox = params.optional_text("sandbox")?.ok_or_else(|| missing("sandbox"))?;
    let sandbox = SandboxName::parse(sandbox)?;
    let namespace = params.optional_text("namespace")?.or(namespace).ok_or_else(|| missing("namespace"))?;
    Ok(Target { namespace: one_namespace(namespace, "using a sandbox")?, sandbox })
}

fn one_namespace(text: &str, act: &'static str) -> Result<NamespaceName, ParseError> {
    if text == "*" {
        return Err(ParseError::Wildcard(act));
    }
    Ok(NamespaceName::parse(text)?)
}

fn start(params: &Params<'_>) -> Result<Start, ParseError> {
    let target = target(params, "sandbox creation")?;
    let config = match params.optional_object("config")? {
        Some(config) => read_config(&config)?,
        None => Config::default(),
    };
    Ok(Start { target, config, timeout_ms: params.optional_milliseconds("timeout_ms")? })
}

fn read_config(config: &Params<'_>) -> Result<Config, ParseError> {
    let whole = config.optional_whole("cpus", 1, 255)?.map(|cpus| cpus.saturating_mul(1000));
    let millis = config.optional_whole("cpu_millis", 10, 255_000)?;
    Ok(Config {
        image: config.optional_text("image")?.map(str::to_owned),
        memory: config.optional_whole("memory", 1, u32::MAX)?,
        cpu_millis: millis.or(whole),
        volumes: config.optional_texts("volumes")?,
        ports: config.optional_texts("ports")?,
        envs: config.optional_assignments("envs")?,
        workdir: config.optional_absolute_path("workdir")?,
    })
}

fn run(params: &Params<'_>) -> Result<Run, ParseError> {
    let target = guest_target(params, Some("default"))?;
    let language_name = params.text("language")?;
    let found = LANGUAGES.iter().find(|(name, _)| *name == language_name);
    let (_, language) = found.ok_or_else(|| ParamsError::Unknown {
        key: params.path("language"),
        found: language_name.chars().take(64).collect(),
        allowed: LANGUAGES.map(|(name, _)| name).join(", "),
    })?;
    Ok(Run {
        target,
        language: *language,
        language_name: language_name.to_owned(),
        code: params.text("code")?.to_owned(),
        timeout_s: params.optional_seconds("timeout")?,
    })
}

fn command(params: &Params<'_>) -> Result<Command, ParseError> {
    let target = guest_target(params, None)?;
    let command = params.text_without_nul("command")?;
    if command.is_empty() {
        return Err(ParamsError::Empty { key: params.path("command") }.into());
    }
    Ok(Command {
        target,
        command: command.to_owned(),
        args: params.optional_arguments("args")?,
        timeout_s: params.optional_seconds("timeout")?,
    })
}

fn metrics(params: &Params<'_>) -> Result<Metrics, ParseError> {
    let scope = match params.text("namespace")? {
        "*" => Scope::All,
        name => Scope::One(NamespaceName::parse(name)?),
    };
    let sandbox = params.optional_text("sandbox")?.map(SandboxName::parse).transpose()?;
    Ok(Metrics { scope, sandbox })
}

fn is_false(value: &bool) -> bool {
    !*value
}
