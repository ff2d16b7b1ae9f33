// SPDX-License-Identifier: Apache-2.0
//! Which parameters are taken, and what is said of the others.

use protocol::agent::Language;
use protocol::calls::{Call, ParseError, Scope, parse};
use serde_json::{Value, json};

fn refusal(method: &str, params: Value) -> String {
    parse(method, &params).expect_err("must be refused").to_string()
}

fn with(mut params: Value, key: &str, value: Value) -> Value {
    params[key] = value;
    params
}

fn start(config: Value) -> Value {
    json!({"sandbox": "s", "namespace": "n", "config": config})
}

fn run() -> Value {
    json!({"sandbox": "s", "namespace": "n", "language": "python", "code": "1"})
}

fn command() -> Value {
    json!({"sandbox": "s", "namespace": "n", "command": "ls"})
}

#[test]
fn unknown_methods_are_named() {
    assert_eq!(refusal("sandbox.fly", Value::Null), "Method not found: sandbox.fly");
    assert!(matches!(parse("", &Value::Null), Err(ParseError::Method(_))));
}

#[test]
fn the_older_names_are_the_same_calls() {
    let (old, new) = ("sandbox.command.execute", "sandbox.command.run");
    assert_eq!(parse(old, &command()).unwrap(), parse(new, &command()).unwrap());
    let namespace = json!({"namespace": "n"});
    let status = parse("sandbox.getStatus", &namespace).unwrap();
    assert_eq!(status, parse("sandbox.metrics.get", &namespace).unwrap());
}

#[test]
fn a_start_carries_its_whole_config_and_ignores_the_rest() {
    let params = start(json!({
        "image": "microsandbox/python", "memory": 512, "cpus": 2, "envs": ["A=1", "B=x=y", "C="],
        "workdir": "/srv", "volumes": [], "ports": null, "shell": "/bin/sh", "scripts": {"a": "b"},
        "exec": "x", "depends_on": ["y"], "unheard_of": 1,
    }));
    let Call::Start(start) = parse("sandbox.start", &with(params, "timeout_ms", json!(90))).unwrap() else {
        panic!("no start");
    };
    assert_eq!(start.timeout_ms, Some(90));
    assert_eq!(start.config.image.as_deref(), Some("microsandbox/python"));
    assert_eq!((start.config.memory, start.config.wanted_cpu_millis()), (Some(512), Some(2000)));
    let envs = [("A", "1"), ("B", "x=y"), ("C", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(start.config.envs, envs);
    assert_eq!(start.config.workdir.as_deref(), Some("/srv"));
}

#[test]
fn cpu_millis_is_finer_than_cpus_and_wins() {
    let params = start(json!({"image": "i", "cpus": 1, "cpu_millis": 250}));
    let Call::Start(start) = parse("sandbox.start", &params).unwrap() else { panic!("no start") };
    assert_eq!(start.config.wanted_cpu_millis(), Some(250));
}

#[test]
fn a_start_without_config_is_a_start() {
    for params in [json!({"sandbox": "s", "namespace": "n"}), start(Value::Null), start(json!({}))] {
        let Call::Start(start) = parse("sandbox.start", &params).unwrap() else { panic!("no start") };
        assert_eq!(start.config, protocol::calls::Config::default());
    }
}

#[test]
fn a_bad_config_is_refused_with_the_parameter_its_value_and_the_rule() {
    let cpus = "Invalid 'config.cpus' parameter: it must be a whole number from 1 to 255, not";
    for (value, found) in [
        (json!(0), "0"),
        (json!(-1), "-1"),
        (json!(1.0), "1.0"),
        (json!(256), "256"),
        (json!("1"), "a string"),
        (json!(true), "true"),
        (json!([]), "an array"),
    ] {
        assert_eq!(refusal("sandbox.start", start(json!({"cpus": value}))), format!("{cpus} {found}"));
    }
    for (key, value, said) in [
        ("memory", json!(0), "a whole number from 1 to 4294967295, not 0"),
        ("memory", json!(-5), "not -5"),
        ("memory", json!(512.5), "not 512.5"),
        ("memory", json!(4_294_967_296_u64), "not 4294967296"),
        ("cpu_millis", json!(9), "a whole number from 10 to 255000, not 9"),
        ("image", json!(5), "a string, not 5"),
        ("envs", json!({"A": "1"}), "an array of strings, not an object"),
        ("envs", json!(["A"]), "\"NAME=value\""),
        ("envs", json!(["A=1", "=1"]), "at position 1"),
        ("envs", json!(["A=\0"]), "NUL"),
        ("envs", json!([1]), "not 1 at position 0"),
        ("volumes", json!("a:b"), "an array of strings, not a string"),
        ("workdir", json!("tmp"), "an absolute path inside the sandbox, not 'tmp'"),
    ] {
        let text = refusal("sandbox.start", start(json!({ key: value })));
        assert!(text.contains(said) && text.contains(&format!("config.{key}")), "{text}");
    }
    assert!(refusal("sandbox.start", start(json!("x"))).contains("'config' parameter: it must be an object"));
    let many = vec!["A=1"; 1025];
    assert!(
        refusal("sandbox.start", start(json!({"envs": many}))).contains("at most 1024 strings, not 1025")
    );
}

#[test]
fn names_are_checked_with_the_published_texts() {
    let name = |sandbox: &str, namespace: &str| json!({"sandbox": sandbox, "namespace": namespace});
    for method in ["sandbox.start", "sandbox.stop"] {
        assert_eq!(refusal(method, name("", "n")), "Sandbox name cannot be empty");
        assert_eq!(
            refusal(method, name("-a", "n")),
            "Sandbox name must start with an alphanumeric character"
        );
        assert_eq!(refusal(method, name("a", "")), "Namespace name cannot be empty");
        assert!(refusal(method, json!({"sandbox": "s"})).contains("'namespace'"));
        assert!(refusal(method, json!({"namespace": "s"})).contains("'sandbox'"));
        assert!(refusal(method, json!({"sandbox": 7, "namespace": "n"})).contains("a string, not 7"));
    }
    assert_eq!(
        refusal("sandbox.start", name("a", "*")),
        "Wildcard namespace (*) is not valid for sandbox creation"
    );
    assert!(refusal("sandbox.stop", name("a", "*")).starts_with("Wildcard namespace (*)"));
}

#[test]
fn calls_to_a_sandbox_keep_the_published_texts_for_missing_names() {
    for method in ["sandbox.repl.run", "sandbox.command.run"] {
        let object = "Request parameters must be an object containing 'sandbox' and 'namespace'";
        assert_eq!(refusal(method, Value::Null), object);
        assert_eq!(refusal(method, json!([1])), object);
        let missing = "Missing required 'sandbox' parameter for portal request";
        assert_eq!(refusal(method, json!({"namespace": "n"})), missing);
    }
    let missing = "Missing required 'namespace' parameter for portal request";
    assert_eq!(refusal("sandbox.command.run", json!({"sandbox": "n", "command": "ls"})), missing);
}

#[test]
fn a_run_without_namespace_means_the_default_one() {
    let params = json!({"sandbox": "s", "language": "python", "code": "1"});
    let Call::Run(run) = parse("sandbox.repl.run", &params).unwrap() else { panic!("no run") };
    assert_eq!(run.target.namespace.as_str(), "default");
}

#[test]
fn languages_are_four_words_for_two_engines() {
    for (name, language) in [
        ("python", Language::Python),
        ("nodejs", Language::Node),
        ("node", Language::Node),
        ("javascript", Language::Node),
    ] {
        let Call::Run(run) = parse("sandbox.repl.run", &with(run(), "language", json!(name))).unwrap() else {
            panic!("no run");
        };
        assert_eq!((run.language.engine, run.language.name.as_str()), (language, name));
    }
    let text = refusal("sandbox.repl.run", with(run(), "language", json!("cobol")));
    assert_eq!(text, "Invalid 'language' parameter: 'cobol' is none of python, nodejs, node, javascript");
    assert!(refusal("sandbox.repl.run", with(run(), "code", json!(1))).contains("'code'"));
}

#[test]
fn timeouts_are_any_whole_seconds_and_at_most_a_day() {
    let timeout = |value: Value| match parse("sandbox.command.run", &with(command(), "timeout", value)) {
        Ok(Call::Command(command)) => Ok(command.timeout_s),
        Ok(other) => panic!("no command: {other:?}"),
        Err(error) => Err(error.to_string()),
    };
    assert_eq!(timeout(json!(0)), Ok(Some(0)));
    assert_eq!(timeout(json!(30_000_000_000_u64)), Ok(Some(86_400)));
    assert_eq!(timeout(json!(u64::MAX)), Ok(Some(86_400)));
    assert_eq!(timeout(Value::Null), Ok(None));
    for bad in [json!(-1), json!(1.5), json!(1.0), json!("1"), json!(true)] {
        let text = timeout(bad).unwrap_err();
        assert!(
            text.starts_with("Invalid 'timeout' parameter: it must be a whole number of seconds"),
            "{text}"
        );
    }
}

#[test]
fn arguments_may_be_null_but_must_be_strings() {
    let arguments = |value: Value| parse("sandbox.command.run", &with(command(), "args", value));
    let Call::Command(command_none) = arguments(Value::Null).unwrap() else { panic!("no command") };
    assert!(command_none.args.is_empty());
    let text = refusal("sandbox.command.run", with(command(), "args", json!(["a", 1])));
    assert!(text.contains("'args'") && text.contains("not 1 at position 1"), "{text}");
    assert!(refusal("sandbox.command.run", with(command(), "args", json!(["\0"]))).contains("NUL"));
    assert!(refusal("sandbox.command.run", with(command(), "command", json!(""))).contains("'command'"));
}

#[test]
fn metrics_take_one_namespace_or_all_of_them() {
    let scope = |params: Value| match parse("sandbox.metrics.get", &params).unwrap() {
        Call::Metrics(metrics) => (metrics.scope, metrics.sandbox.map(|name| name.to_string())),
        other => panic!("no metrics: {other:?}"),
    };
    assert_eq!(scope(json!({"namespace": "*", "sandbox": null})), (Scope::All, None));
    assert_eq!(scope(json!({"namespace": "*", "sandbox": "s"})), (Scope::All, Some("s".to_owned())));
    assert!(refusal("sandbox.metrics.get", json!({})).contains("'namespace'"));
    assert!(refusal("sandbox.metrics.get", Value::Null).contains("'namespace'"));
    assert!(
        refusal("sandbox.metrics.get", json!({"namespace": "n", "sandbox": "*"})).contains("Sandbox name")
    );
}

#[test]
fn the_image_store_is_for_keys_of_all_namespaces_and_pulling_for_every_key() {
    let scope = |method: &str| parse(method, &json!({"image": "debian:12"})).unwrap().scope();
    for method in ["image.list", "image.inspect", "image.remove"] {
        assert_eq!(scope(method), Some(Scope::All), "{method}");
    }
    assert_eq!(scope("image.pull"), None);
}
