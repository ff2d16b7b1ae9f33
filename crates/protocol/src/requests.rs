// SPDX-License-Identifier: Apache-2.0
//! What a client can ask: the parameters of each method, how they are read, and what the document says of them.
//!
//! A type's schema comes from its fields, its reading is written by hand, so that an error names the parameter, what was
//! wrong and what is allowed. A test holds the two together.

use schemars::{JsonSchema, Schema};

use crate::agent::Language;
use crate::calls::ParseError;
use crate::limits::{
    CONFIG_ITEMS_MAX, DISK_MIB_MAX, DISK_MIB_MIN, IO_WEIGHT_MAX, IO_WEIGHT_MIN, NETWORK_ALLOWED_MAX,
    OPEN_FILES_MAX, OPEN_FILES_MIN, PIDS_MAX, PIDS_MIN, PORTS_MAX,
};
use crate::names::{NamespaceName, SandboxName};
use crate::network::{Allowed, Network, PublishedPort};
use crate::params::{Params, ParamsError, WordOrList};

/// The parameters of one method.
pub(crate) trait Parameters: JsonSchema + Sized {
    /// What is said to a caller whose parameters are no object; nothing where they may be left out.
    const NO_OBJECT: Option<&'static str> =
        Some("Request parameters must be an object containing 'sandbox' and 'namespace'");

    /// Reads and checks them.
    fn read(params: &Params<'_>) -> Result<Self, ParseError>;

    /// Returns the namespaces that the call is about, if it is about any.
    fn scope(&self) -> Option<Scope>;
}

/// The sandbox that a call is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
pub struct Target {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name there.
    pub sandbox: SandboxName,
}

/// The namespaces that a question is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(with = "String", extend("pattern" = r"^(\*|[A-Za-z0-9][A-Za-z0-9_-]{0,62})$"))]
pub enum Scope {
    /// `*`: all of them.
    All,
    /// This one.
    One(NamespaceName),
}

/// Parameters of `sandbox.start`.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct Start {
    /// The sandbox.
    #[schemars(flatten)]
    pub target: Target,
    /// What the sandbox shall be; may be left out for one that was started before.
    #[schemars(default)]
    pub config: Config,
    /// How long the start may take, in milliseconds; after that nothing of it is kept. At most a day.
    pub timeout_ms: Option<u64>,
}

/// What a sandbox shall be. What depends on the machine (how much memory there is) is checked by the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct Config {
    /// The image's name, such as microsandbox/python or microsandbox/node.
    pub image: Option<String>,
    /// When the registry is asked for the image; if it is missing here, where nothing is said.
    pub pull: Option<Pull>,
    /// Memory in MiB.
    #[schemars(range(min = 1))]
    pub memory: Option<u32>,
    /// Processors; more than the machine has are lowered to that.
    #[schemars(range(min = 1, max = 255))]
    pub cpus: Option<u32>,
    /// Processors in thousandths of one; goes before `cpus`.
    #[schemars(range(min = 10, max = 255_000))]
    pub cpu_millis: Option<u32>,
    /// Most processes and threads; 512 where nothing is said.
    #[schemars(range(min = 32, max = 4096))]
    pub pids: Option<u32>,
    /// Most file descriptors of one process; 65536 where nothing is said.
    #[schemars(range(min = 512, max = 1_048_576))]
    pub open_files: Option<u32>,
    /// Size of `/dev/shm` in MiB, at most that of the memory; 64 or the memory where nothing is said.
    #[schemars(range(min = 1))]
    pub shm: Option<u32>,
    /// Share of a busy disk, against 100 of others.
    #[schemars(range(min = 1, max = 1000))]
    pub io_weight: Option<u32>,
    /// What the sandbox may write to its own file system, in MiB; metadata counts too.
    #[schemars(range(min = DISK_MIB_MIN, max = DISK_MIB_MAX))]
    pub disk: Option<u32>,
    /// Directories of the server's machine: `host:guest` or `host:guest:ro` to read, `host:guest:rw` to write as well.
    /// The server's operator says which there can be.
    #[schemars(default)]
    pub volumes: Vec<String>,
    /// `host:guest` ports: a port of the server's loopback interface that leads to one of the sandbox; 0 takes a free one.
    #[schemars(default, with = "Vec<String>")]
    pub ports: Vec<PublishedPort>,
    /// Whom its programs may reach: "none", "public" (the internet, and neither private addresses nor the host's own), or
    /// an object with an array `allow` of domains, `*.domains`, addresses and ranges, each with `:port` or without.
    pub network: Option<Network>,
    /// Environment variables as `NAME=value`; a later one wins.
    #[schemars(default, with = "Vec<String>")]
    pub envs: Vec<(String, String)>,
    /// The absolute path of the directory in which kernels and commands start.
    pub workdir: Option<String>,
}

/// When a registry is asked for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Each time: a tag may mean something else by now.
    Always,
    /// When the image is not in the store.
    IfMissing,
    /// Never.
    Never,
}

/// Parameters of `sandbox.stop`.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct Stop {
    /// The sandbox.
    #[schemars(flatten)]
    pub target: Target,
}

/// Parameters of `sandbox.get`.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct Get {
    /// The sandbox.
    #[schemars(flatten)]
    pub target: Target,
}

/// Parameters of `sandbox.repl.run`.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(transform = namespace_has_default)]
pub struct Run {
    /// The sandbox.
    #[schemars(flatten)]
    pub target: Target,
    /// The language; nodejs, node and javascript are one.
    pub language: NamedLanguage,
    /// The source. It is executed as a whole; variables are kept for the next run.
    pub code: String,
    /// Seconds after which the execution is ended; none if left out. At most a day.
    #[schemars(rename = "timeout")]
    pub timeout_s: Option<u64>,
}

/// A language, and how the client called it: the answer calls it the same.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedLanguage {
    /// The engine.
    pub engine: Language,
    /// The client's word for it.
    pub name: String,
}

/// Parameters of `sandbox.command.run`.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct Command {
    /// The sandbox.
    #[schemars(flatten)]
    pub target: Target,
    /// The program, looked up in PATH; no shell is between.
    #[schemars(length(min = 1))]
    pub command: String,
    /// Its arguments.
    #[schemars(default)]
    pub args: Vec<String>,
    /// Seconds after which the process tree is killed; none if left out. At most a day.
    #[schemars(rename = "timeout")]
    pub timeout_s: Option<u64>,
}

/// Parameters of `sandbox.metrics.get`.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct Metrics {
    /// Where to look; `*` is every namespace.
    #[schemars(rename = "namespace")]
    pub scope: Scope,
    /// One sandbox; all of the namespace if left out.
    pub sandbox: Option<SandboxName>,
}

/// Parameters of `image.pull`.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct ImagePull {
    /// The image's reference, such as debian:12.
    pub image: String,
    /// When the registry is asked for it; if it is missing here, where nothing is said.
    pub pull: Option<Pull>,
    /// How long to wait, in milliseconds; the pull goes on after that. At most a day.
    pub timeout_ms: Option<u64>,
}

/// Parameters of `image.list`: none.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct ListImages {}

/// Parameters of `image.inspect`.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct InspectImage {
    /// The image's reference, or the beginning of its digest.
    pub image: String,
}

/// Parameters of `image.remove`.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct RemoveImage {
    /// The image's reference, or the beginning of its digest.
    pub image: String,
}

/// Parameters of `rpc.discover`: none.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
pub struct Discover {}

/// The languages there are, as clients call them.
const LANGUAGES: [(&str, Language); 4] = [
    ("python", Language::Python),
    ("nodejs", Language::Node),
    ("node", Language::Node),
    ("javascript", Language::Node),
];

/// What one old client leaves out.
const NAMESPACE_DEFAULT: &str = "default";

impl Parameters for Start {
    fn read(params: &Params<'_>) -> Result<Start, ParseError> {
        let target = target(params, "sandbox creation")?;
        let config = match params.optional_object("config")? {
            Some(config) => Config::read(&config)?,
            None => Config::default(),
        };
        Ok(Start { target, config, timeout_ms: params.optional_milliseconds("timeout_ms")? })
    }

    fn scope(&self) -> Option<Scope> {
        Some(self.target.scope())
    }
}

impl Config {
    fn read(config: &Params<'_>) -> Result<Config, ParseError> {
        Ok(Config {
            image: config.optional_text("image")?.map(str::to_owned),
            pull: config.optional_text("pull")?.map(|word| Pull::read(config, word)).transpose()?,
            memory: config.optional_whole("memory", 1, u32::MAX)?,
            cpus: config.optional_whole("cpus", 1, 255)?,
            cpu_millis: config.optional_whole("cpu_millis", 10, 255_000)?,
            pids: config.optional_whole("pids", PIDS_MIN, PIDS_MAX)?,
            open_files: config.optional_whole("open_files", OPEN_FILES_MIN, OPEN_FILES_MAX)?,
            shm: config.optional_whole("shm", 1, u32::MAX)?,
            io_weight: config.optional_whole("io_weight", IO_WEIGHT_MIN, IO_WEIGHT_MAX)?,
            disk: config.optional_whole("disk", DISK_MIB_MIN, DISK_MIB_MAX)?,
            volumes: config.optional_texts("volumes", CONFIG_ITEMS_MAX)?,
            ports: ports(config)?,
            network: network(config)?,
            envs: config.optional_assignments("envs")?,
            workdir: config.optional_absolute_path("workdir")?,
        })
    }

    /// Returns the processors that were asked for, in thousandths of one.
    pub fn wanted_cpu_millis(&self) -> Option<u32> {
        self.cpu_millis.or(self.cpus.map(|cpus| cpus.saturating_mul(1000)))
    }
}

fn ports(config: &Params<'_>) -> Result<Vec<PublishedPort>, ParamsError> {
    let texts = config.optional_texts("ports", PORTS_MAX)?;
    let refused = |error| ParamsError::Refused { key: config.path("ports"), why: error };
    texts.iter().map(|text| PublishedPort::parse(text).map_err(refused)).collect()
}

/// Reads a policy; whatever is none is an error, never an open network.
fn network(config: &Params<'_>) -> Result<Option<Network>, ParamsError> {
    let Some(allow) = config.optional_word_or_list("network", NETWORK_WORDS, "allow", NETWORK_ALLOWED_MAX)?
    else {
        return Ok(None);
    };
    let refused = |error| ParamsError::Refused { key: config.path("network"), why: error };
    match allow {
        WordOrList::Word("none") => Ok(Some(Network::None)),
        WordOrList::Word(_) => Ok(Some(Network::Public)),
        WordOrList::List(texts) => {
            let entries = texts.iter().map(|text| Allowed::parse(text).map_err(refused));
            Ok(Some(Network::Allow(entries.collect::<Result<_, _>>()?)))
        }
    }
}

/// The policies that are one word.
const NETWORK_WORDS: [&str; 2] = ["none", "public"];

impl JsonSchema for Network {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> Schema {
        schemars::json_schema!({"anyOf": [
            {"type": "string", "enum": NETWORK_WORDS},
            {
                "type": "object",
                "properties": {"allow": {"type": "array", "items": {"type": "string"}, "maxItems": NETWORK_ALLOWED_MAX}},
                "required": ["allow"],
                "additionalProperties": false,
            },
        ]})
    }
}

/// The words for when a registry is asked.
const PULLS: [(&str, Pull); 3] =
    [("always", Pull::Always), ("if-missing", Pull::IfMissing), ("never", Pull::Never)];

impl Pull {
    fn read(config: &Params<'_>, word: &str) -> Result<Pull, ParseError> {
        let found = PULLS.iter().find(|(known, _)| *known == word);
        let (_, pull) = found.ok_or_else(|| ParamsError::Unknown {
            key: config.path("pull"),
            found: word.chars().take(64).collect(),
            allowed: PULLS.map(|(word, _)| word).join(", "),
        })?;
        Ok(*pull)
    }
}

impl JsonSchema for Pull {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pull".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "string", "enum": PULLS.map(|(word, _)| word)})
    }
}

impl Parameters for Stop {
    fn read(params: &Params<'_>) -> Result<Stop, ParseError> {
        Ok(Stop { target: target(params, "stopping a sandbox")? })
    }

    fn scope(&self) -> Option<Scope> {
        Some(self.target.scope())
    }
}

impl Parameters for Get {
    fn read(params: &Params<'_>) -> Result<Get, ParseError> {
        Ok(Get { target: target(params, "looking at a sandbox")? })
    }

    fn scope(&self) -> Option<Scope> {
        Some(self.target.scope())
    }
}

impl Parameters for Run {
    fn read(params: &Params<'_>) -> Result<Run, ParseError> {
        Ok(Run {
            target: guest_target(params, Some(NAMESPACE_DEFAULT))?,
            language: NamedLanguage::read(params, "language")?,
            code: params.text("code")?.to_owned(),
            timeout_s: params.optional_seconds("timeout")?,
        })
    }

    fn scope(&self) -> Option<Scope> {
        Some(self.target.scope())
    }
}

impl NamedLanguage {
    fn read(params: &Params<'_>, key: &str) -> Result<NamedLanguage, ParseError> {
        let name = params.text(key)?;
        let found = LANGUAGES.iter().find(|(known, _)| *known == name);
        let (_, engine) = found.ok_or_else(|| ParamsError::Unknown {
            key: params.path(key),
            found: name.chars().take(64).collect(),
            allowed: LANGUAGES.map(|(name, _)| name).join(", "),
        })?;
        Ok(NamedLanguage { engine: *engine, name: name.to_owned() })
    }
}

impl JsonSchema for NamedLanguage {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Language".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "string", "enum": LANGUAGES.map(|(name, _)| name)})
    }
}

impl Parameters for Command {
    fn read(params: &Params<'_>) -> Result<Command, ParseError> {
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

    fn scope(&self) -> Option<Scope> {
        Some(self.target.scope())
    }
}

impl Parameters for Metrics {
    const NO_OBJECT: Option<&'static str> =
        Some("Request parameters must be an object containing 'namespace'");

    fn read(params: &Params<'_>) -> Result<Metrics, ParseError> {
        let scope = match params.text("namespace")? {
            "*" => Scope::All,
            name => Scope::One(NamespaceName::parse(name)?),
        };
        let sandbox = params.optional_text("sandbox")?.map(SandboxName::parse).transpose()?;
        Ok(Metrics { scope, sandbox })
    }

    fn scope(&self) -> Option<Scope> {
        Some(self.scope.clone())
    }
}

const IMAGE_NEEDED: Option<&'static str> = Some("Request parameters must be an object containing 'image'");

impl Parameters for ImagePull {
    const NO_OBJECT: Option<&'static str> = IMAGE_NEEDED;

    fn read(params: &Params<'_>) -> Result<ImagePull, ParseError> {
        Ok(ImagePull {
            image: params.text("image")?.to_owned(),
            pull: params.optional_text("pull")?.map(|word| Pull::read(params, word)).transpose()?,
            timeout_ms: params.optional_milliseconds("timeout_ms")?,
        })
    }

    fn scope(&self) -> Option<Scope> {
        None
    }
}

impl Parameters for ListImages {
    const NO_OBJECT: Option<&'static str> = None;

    fn read(_: &Params<'_>) -> Result<ListImages, ParseError> {
        Ok(ListImages {})
    }

    /// The store is everybody's: who is held to one namespace does not learn what others use.
    fn scope(&self) -> Option<Scope> {
        Some(Scope::All)
    }
}

impl Parameters for InspectImage {
    const NO_OBJECT: Option<&'static str> = IMAGE_NEEDED;

    fn read(params: &Params<'_>) -> Result<InspectImage, ParseError> {
        Ok(InspectImage { image: params.text("image")?.to_owned() })
    }

    fn scope(&self) -> Option<Scope> {
        Some(Scope::All)
    }
}

impl Parameters for RemoveImage {
    const NO_OBJECT: Option<&'static str> = IMAGE_NEEDED;

    fn read(params: &Params<'_>) -> Result<RemoveImage, ParseError> {
        Ok(RemoveImage { image: params.text("image")?.to_owned() })
    }

    fn scope(&self) -> Option<Scope> {
        Some(Scope::All)
    }
}

impl Parameters for Discover {
    const NO_OBJECT: Option<&'static str> = None;

    fn read(_: &Params<'_>) -> Result<Discover, ParseError> {
        Ok(Discover {})
    }

    fn scope(&self) -> Option<Scope> {
        None
    }
}

impl Target {
    fn scope(&self) -> Scope {
        Scope::One(self.namespace.clone())
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

/// Says in a schema that the namespace may be left out.
fn namespace_has_default(schema: &mut Schema) {
    if let Some(required) = schema.get_mut("required").and_then(|required| required.as_array_mut()) {
        required.retain(|name| name != "namespace");
    }
    if let Some(namespace) =
        schema.pointer_mut("/properties/namespace").and_then(|value| value.as_object_mut())
    {
        namespace.insert("default".to_owned(), NAMESPACE_DEFAULT.into());
    }
}
