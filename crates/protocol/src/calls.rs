// SPDX-License-Identifier: Apache-2.0
//! The whole API in one table: what a client can ask, and what it gets.
//!
//! A row of the table makes a method known everywhere at once: to [`parse`], which turns a name and parameters into a
//! [`Call`]; to the server, whose `match` over [`Call`] does not compile without it; to the OpenRPC document and to the
//! tools of MCP, which are made from [`METHODS`]. [`parse`] checks types and names, so that what comes after cannot meet
//! a malformed one; what depends on the machine is not known here. Unknown keys are ignored.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::Value;

use crate::limits::UNKNOWN_NAME_CHARS_MAX;
use crate::names::NameError;
use crate::params::{Params, ParamsError};
use crate::requests::Parameters;

pub use crate::requests::{
    Command, Config, Discover, Get, ImagePull, InspectImage, ListImages, Metrics, NamedLanguage, Pull,
    RemoveImage, Run, Scope, Start, Stop, Target,
};
pub use crate::results::{
    CommandResult, Document, ImageDetails, ImageInfo, ImageList, ImageRemoved, ImageSource, MetricsResult,
    OutputLine, RunResult, RunStatus, SandboxInfo, SandboxMetrics, Stream, Text,
};

/// One row of the table of methods.
#[derive(Debug)]
pub struct Method {
    /// Its name on the wire.
    pub name: &'static str,
    /// Names under which older clients call it.
    pub older_names: &'static [&'static str],
    /// Its name as a tool of MCP, if it is one.
    pub tool: Option<&'static str>,
    /// What it does to sandboxes.
    pub effect: Effect,
    /// What it is, as it stands in the table.
    description: &'static str,
    /// Makes the JSON Schema of its parameters: one object, nothing referred to.
    pub params: fn() -> Schema,
    /// Makes the JSON Schema of its result.
    pub result: fn() -> Schema,
}

/// What a call does to sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It changes nothing.
    Reads,
    /// It changes something; doing it twice is the same as doing it once, and nothing is lost by it.
    Adds,
    /// It changes something; doing it twice is the same as doing it once, and something is lost by it.
    Removes,
    /// It executes what the client wrote, so it can do anything inside a sandbox.
    Executes,
}

macro_rules! methods {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident($params:ty) -> $result:ty {
            name: $name:literal, older: [$($older:literal),*], tool: $tool:expr, effect: $effect:ident $(,)?
        }
    )+) => {
        /// One call, checked.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Call {
            $($(#[doc = $doc])+ $variant($params),)+
        }

        /// The result of a call, as it is written into an answer.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum Outcome {
            $(#[doc = concat!("Of `", $name, "`.")] $variant($result),)+
        }

        /// The methods there are.
        pub const METHODS: &[Method] = &[$(Method {
            name: $name,
            older_names: &[$($older),*],
            tool: $tool,
            effect: Effect::$effect,
            description: concat!($($doc, "\n"),+),
            params: schema::<$params>,
            result: schema::<$result>,
        }),+];

        impl Call {
            /// Returns the namespaces that it is about; `None` when it is about no sandbox.
            pub fn scope(&self) -> Option<Scope> {
                match self { $(Call::$variant(params) => params.scope(),)+ }
            }
        }

        fn read(name: &str, params: &Value) -> Result<Call, ParseError> {
            match name {
                $($name $(| $older)* => {
                    let params = Params::object(params, <$params as Parameters>::NO_OBJECT)?;
                    <$params as Parameters>::read(&params).map(Call::$variant)
                })+
                other => Err(ParseError::Method(shown(other))),
            }
        }
    };
}

methods! {
    /// Starts a sandbox.
    ///
    /// The answer comes when the sandbox can be used. Starting one that runs already changes nothing and succeeds.
    Start(Start) -> Text { name: "sandbox.start", older: [], tool: Some("sandbox_start"), effect: Adds }

    /// Stops a sandbox and removes what it wrote.
    ///
    /// Stopping one that is stopped already succeeds.
    Stop(Stop) -> Text { name: "sandbox.stop", older: [], tool: Some("sandbox_stop"), effect: Removes }

    /// Runs code in a sandbox's interpreter.
    ///
    /// Variables are kept from run to run. The status says how the code ended; code that raised is no error of the call.
    Run(Run) -> RunResult {
        name: "sandbox.repl.run", older: [], tool: Some("sandbox_run_code"), effect: Executes,
    }

    /// Runs a program in a sandbox and waits for its end.
    ///
    /// An exit code other than 0 is no error of the call; a program that is not there, or whose time was up, is one.
    Command(Command) -> CommandResult {
        name: "sandbox.command.run", older: ["sandbox.command.execute"], tool: Some("sandbox_run_command"),
        effect: Executes,
    }

    /// Tells what a sandbox is: its image, its limits, and how strong its wall is.
    ///
    /// Each protection of the wall is listed, on or off, with the reason where it is off.
    Get(Get) -> SandboxInfo { name: "sandbox.get", older: [], tool: Some("sandbox_get"), effect: Reads }

    /// Tells what sandboxes use of the machine.
    ///
    /// A whole namespace lists the sandboxes that run.
    Metrics(Metrics) -> MetricsResult {
        name: "sandbox.metrics.get", older: ["sandbox.getStatus"], tool: Some("sandbox_get_metrics"), effect: Reads,
    }

    /// Pulls an image into the server's store.
    ///
    /// Starting a sandbox pulls its image too; this does it ahead. What is there already is not pulled again, unless
    /// that is asked for.
    PullImage(ImagePull) -> ImageInfo { name: "image.pull", older: [], tool: Some("image_pull"), effect: Adds }

    /// Lists the images of the server's store.
    ///
    /// For keys that are not held to one namespace.
    ListImages(ListImages) -> ImageList { name: "image.list", older: [], tool: Some("image_list"), effect: Reads }

    /// Tells what an image of the server's store consists of and asks for.
    ///
    /// For keys that are not held to one namespace.
    InspectImage(InspectImage) -> ImageDetails {
        name: "image.inspect", older: [], tool: Some("image_inspect"), effect: Reads,
    }

    /// Removes an image from the server's store.
    ///
    /// Sandboxes that use it go on; its layers go when the last of them does. For keys that are not held to one
    /// namespace.
    RemoveImage(RemoveImage) -> ImageRemoved {
        name: "image.remove", older: [], tool: Some("image_remove"), effect: Removes,
    }

    /// Describes this API as an OpenRPC document.
    Discover(Discover) -> Document { name: "rpc.discover", older: [], tool: None, effect: Reads }
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

/// Turns a method and its parameters into a call.
///
/// # Errors
/// [`ParseError`] naming the parameter, what was wrong with it and what is allowed.
pub fn parse(method: &str, params: &Value) -> Result<Call, ParseError> {
    read(method, params)
}

impl Method {
    /// Returns what it is, for readers: the first paragraph is a summary.
    pub fn text(&self) -> String {
        self.description.trim().lines().map(str::trim).collect::<Vec<&str>>().join("\n")
    }

    /// Returns what it does, in one sentence.
    pub fn summary(&self) -> &'static str {
        self.description.trim().lines().next().unwrap_or_default().trim()
    }
}

/// Returns as much of an unknown name as is worth repeating.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(UNKNOWN_NAME_CHARS_MAX).collect()
}

fn schema<T: schemars::JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>()
}
