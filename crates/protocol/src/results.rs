// SPDX-License-Identifier: Apache-2.0
//! What a client gets: the results of calls, as they are written into answers.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::isolation::Isolation;

/// A sentence that says what was done.
pub type Text = String;

/// The whole API, described: an OpenRPC document.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Document(pub &'static Value);

impl JsonSchema for Document {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Document".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "object", "description": "An OpenRPC document."})
    }
}

/// Result of `sandbox.repl.run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputLine {
    /// Where it came from.
    pub stream: Stream,
    /// Its text.
    pub text: String,
}

/// The two streams of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Result of `sandbox.get`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxInfo {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether it runs.
    pub running: bool,
    /// The image that it was started from, as it was asked for.
    pub image: String,
    /// Where the image was found: `store`, `host` (this machine's own programs) or `directory`.
    pub image_source: ImageSource,
    /// The reference and the digest of the image in the server's store, when it came from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_reference: Option<String>,
    /// Memory limit in MiB.
    pub memory: u32,
    /// Processors; fractions are possible.
    pub cpus: f64,
    /// How strong its wall is, read from the sandbox itself; nothing while it does not run.
    pub isolation: Option<Isolation>,
}

/// Where an image was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageSource {
    /// The server's store, where it was before.
    Store,
    /// A registry, from which it was pulled into the store for this.
    Registry,
    /// The server's machine itself.
    Host,
    /// A directory that the operator allows.
    Directory,
}

/// Result of `sandbox.metrics.get`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricsResult {
    /// One entry for each sandbox.
    pub sandboxes: Vec<SandboxMetrics>,
}

/// What one sandbox uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Whom its programs may reach: `public` or `allow`; absent where that is nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// How many packets and questions for names were refused because of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_denied: Option<u64>,
    /// Its published ports, as `host:guest`, with the host's ports as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}

/// An image of the server's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageInfo {
    /// Its reference, in full.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
    /// What it is for, as `os/architecture`.
    pub platform: String,
    /// Bytes of the image as it was sent.
    pub size: u64,
    /// How many layers it has.
    pub layers: usize,
    /// When it was pulled or loaded, in seconds since 1970.
    pub pulled: u64,
}

/// Result of `image.list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageList {
    /// One entry for each reference.
    pub images: Vec<ImageInfo>,
}

/// Result of `image.inspect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageDetails {
    /// What the list says of it.
    #[serde(flatten)]
    pub info: ImageInfo,
    /// The digests of its layers as they are sent, lowest first.
    pub layer_digests: Vec<String>,
    /// The environment of programs in it, as `NAME=value`.
    pub envs: Vec<String>,
    /// The directory in which they start.
    pub workdir: Option<String>,
    /// The user that they are.
    pub user: Option<String>,
    /// What Docker would start, and sandboxes do not.
    pub entrypoint: Vec<String>,
    /// Its arguments, or what Docker would start without one.
    pub command: Vec<String>,
}

/// Result of `image.remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageRemoved {
    /// The reference that means nothing any more.
    pub reference: String,
    /// Whether somebody uses the image still, so that its layers stay until then.
    pub in_use: bool,
    /// Bytes of the disk that became free.
    pub freed: u64,
}

fn is_false(value: &bool) -> bool {
    !*value
}
