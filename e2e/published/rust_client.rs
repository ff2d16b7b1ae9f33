// SPDX-License-Identifier: Apache-2.0
//! What a user of a published Rust client does; prints what came of it as JSON.
//!
//! One text for both versions: the later one has metrics.

use std::error::Error;
use std::time::Instant;

use microsandbox::{
    BaseSandbox, Execution, NodeSandbox, PythonSandbox, SandboxError, SandboxOptions, StartOptions,
};
use serde_json::{Map, Value, json};

type Failure = Box<dyn Error + Send + Sync>;
type Found = Map<String, Value>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut found = Found::new();
    running(&mut found).await?;
    life_cycle(&mut found).await?;
    own_key(&mut found).await?;
    node(&mut found).await?;
    println!("{}", Value::Object(found));
    Ok(())
}

/// Gives all that an execution says of itself.
async fn seen(execution: Execution) -> Result<Value, Failure> {
    Ok(json!({
        "output": execution.output().await?,
        "error": execution.error().await?,
        "has_error": execution.has_error(),
        "status": execution.status(),
        "language": execution.language(),
    }))
}

/// Gives the kind and the words of the error that a call must end with.
fn refusal<T>(result: Result<T, Failure>) -> Result<Value, Failure> {
    let Err(error) = result else { return Err("no error came".into()) };
    let kind = match error.downcast_ref::<SandboxError>() {
        Some(SandboxError::NotStarted) => "NotStarted",
        Some(SandboxError::RequestFailed(_)) => "RequestFailed",
        Some(_) => "another SandboxError",
        None => "no SandboxError",
    };
    Ok(json!([kind, error.to_string()]))
}

async fn running(found: &mut Found) -> Result<(), Failure> {
    let mut sandbox = PythonSandbox::create("published-running").await?;
    sandbox.start(None).await?;
    let codes = [
        ("hello", "print('Hello, World!')"),
        ("silent", "x = 42"),
        ("state", "y = x * 2\nprint(f'Result: {y}')"),
        ("raised", "print('before')\n1/0\nprint('never')"),
        ("syntax", "def broken(:"),
        ("warned", "import sys\nprint('careful', file=sys.stderr)\nprint('done')"),
        ("after", "print(x)"),
        ("unicode", "s = 'héllo 你好 🎉'\nprint(s, len(s))"),
        ("layout", "print('  a\\n\\n b  ')"),
    ];
    for (name, code) in codes {
        let execution = sandbox.run(code).await?;
        found.insert(name.into(), seen(execution).await?);
    }
    let large = sandbox.run("for i in range(20_000): print(i, 'x' * 30)").await?;
    let output = large.output().await?;
    let lines: Vec<&str> = output.split('\n').collect();
    let summary = json!([lines.len(), lines.first(), lines.last(), large.has_error()]);
    found.insert("large".into(), summary);
    commands(&sandbox, found).await?;
    #[cfg(feature = "metrics")]
    metrics(&sandbox, found).await?;
    sandbox.stop().await?;
    Ok(())
}

async fn commands(sandbox: &PythonSandbox, found: &mut Found) -> Result<(), Failure> {
    let command = sandbox.command().await?;
    let script = vec!["-c", "echo out; echo err >&2; exit 3"];
    let result = command.run("sh", Some(script), None).await?;
    let ended =
        json!([result.output().await?, result.error().await?, result.exit_code(), result.is_success()]);
    found.insert("command".into(), ended);
    found.insert("command asked".into(), json!([result.command(), result.args()]));
    let began = Instant::now();
    let timeout = refusal(command.run("sleep", Some(vec!["10"]), Some(1)).await)?;
    found.insert("timeout seconds".into(), json!(began.elapsed().as_secs_f64()));
    found.insert("timeout".into(), timeout);
    found.insert("missing".into(), refusal(command.run("no-such-program", None, None).await)?);
    let result = command.run("true", None, Some(30)).await?;
    let ended = json!([result.error().await?, result.exit_code(), result.is_success(), result.args()]);
    found.insert("command after".into(), ended);
    let state = sandbox.run("print(x)").await?;
    found.insert("state after commands".into(), state.output().await?.into());
    Ok(())
}

#[cfg(feature = "metrics")]
async fn metrics(sandbox: &PythonSandbox, found: &mut Found) -> Result<(), Failure> {
    let metrics = sandbox.metrics().await?;
    let (cpu, memory, disk) = (metrics.cpu().await?, metrics.memory().await?, metrics.disk().await?);
    found.insert("metrics".into(), json!([metrics.is_running().await?, cpu, memory, disk]));
    found.insert("raw metrics".into(), metrics.all().await?);
    Ok(())
}

/// Two objects of one name: the second cannot know that the first has started the sandbox, or stopped it.
async fn life_cycle(found: &mut Found) -> Result<(), Failure> {
    let options = || StartOptions { memory: 256, cpus: 2.0, ..StartOptions::default() };
    let mut first = PythonSandbox::create("published-life").await?;
    let mut second = PythonSandbox::create("published-life").await?;
    found.insert("before the start".into(), refusal(first.run("1").await)?);
    let unknown = StartOptions { image: Some("no-such-image".into()), ..options() };
    found.insert("no such image".into(), refusal(first.start(Some(unknown)).await)?);
    first.start(Some(options())).await?;
    first.run("x = 'kept'").await?;
    first.start(None).await?;
    second.start(Some(options())).await?;
    found.insert("started twice".into(), seen(second.run("print(x)").await?).await?);
    first.stop().await?;
    first.stop().await?;
    found.insert("stopped, and known".into(), refusal(first.run("1").await)?);
    found.insert("stopped, and unknown".into(), refusal(second.run("1").await)?);
    second.stop().await?;
    let again = first.run_or_start("print('x' in globals())").await?;
    found.insert("started again".into(), seen(again).await?);
    first.stop().await
}

async fn own_key(found: &mut Found) -> Result<(), Failure> {
    let key = std::env::var("OWN_KEY")?;
    let options = SandboxOptions::builder().namespace("published").api_key(&key).build();
    let mut sandbox = PythonSandbox::create_with_options(options).await?;
    let elsewhere = sandbox.run_or_start("print('elsewhere')").await?;
    found.insert("other namespace".into(), seen(elsewhere).await?);
    sandbox.stop().await
}

async fn node(found: &mut Found) -> Result<(), Failure> {
    let mut sandbox = NodeSandbox::create("published-node").await?;
    sandbox.start(None).await?;
    sandbox.run("const x = 20").await?;
    let codes = [
        ("node", "console.log('Hello from Node.js!', x * 2)"),
        ("node raised", "throw new Error('boom')"),
        ("node after", "console.log(x)"),
    ];
    for (name, code) in codes {
        let execution = sandbox.run(code).await?;
        found.insert(name.into(), seen(execution).await?);
    }
    sandbox.stop().await
}
