// SPDX-License-Identifier: Apache-2.0
//! What is told of the use of the machine.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Server, target, within};

async fn metrics(server: &Server, params: Value) -> Vec<Value> {
    let result = server.result("sandbox.metrics.get", params).await;
    result["sandboxes"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_running_sandbox_has_six_keys_with_whole_numbers() {
    let server = Server::start().await;
    server.up("s").await;
    server.fake.last().use_machine(|usage| usage.memory_bytes = (5 << 20) + 1);
    server.fake.last().use_disk(123);
    let found = metrics(&server, target("s")).await;
    let expected = json!({
        "namespace": "default", "name": "s", "running": true, "cpu_usage": found[0]["cpu_usage"],
        "memory_usage": 6, "disk_usage": 123,
    });
    assert_eq!(found, [expected]);
}

#[tokio::test]
async fn processor_use_is_null_first_and_sampled_then() {
    let server = Server::start().await;
    server.up("s").await;
    assert_eq!(metrics(&server, target("s")).await[0]["cpu_usage"], Value::Null);
    server.fake.last().use_machine(|usage| usage.cpu_ns = 100_000_000);
    let sampled = async {
        loop {
            if let Some(percent) = metrics(&server, target("s")).await[0]["cpu_usage"].as_f64() {
                return percent;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let percent = within(sampled).await;
    assert!(percent > 0.0 && percent <= 100.0, "100 ms of work over 100 ms or more: {percent}");
}

#[tokio::test]
async fn lists_have_what_runs_and_names_what_is_known() {
    let server = Server::start().await;
    for (name, namespace) in [("a", "one"), ("b", "one"), ("a", "two")] {
        let params = json!({"sandbox": name, "namespace": namespace, "config": server.config()});
        server.result("sandbox.start", params).await;
    }
    let names = |found: Vec<Value>| -> Vec<String> {
        let name =
            |one: &Value| format!("{}/{}", one["namespace"].as_str().unwrap(), one["name"].as_str().unwrap());
        found.iter().map(name).collect()
    };
    assert_eq!(names(metrics(&server, json!({"namespace": "one"})).await), ["one/a", "one/b"]);
    assert_eq!(names(metrics(&server, json!({"namespace": "*"})).await), ["one/a", "one/b", "two/a"]);
    assert_eq!(names(metrics(&server, json!({"namespace": "*", "sandbox": "a"})).await), ["one/a", "two/a"]);
    assert_eq!(names(metrics(&server, json!({"namespace": "none"})).await), Vec::<String>::new());
    assert_eq!(
        names(metrics(&server, json!({"namespace": "*", "sandbox": "z"})).await),
        Vec::<String>::new()
    );
    let old = server.result("sandbox.getStatus", json!({"namespace": "two"})).await;
    assert_eq!(old["sandboxes"][0]["name"], "a");
}

#[tokio::test]
async fn a_sandbox_that_ended_is_told_as_not_running_with_nulls() {
    let server = Server::start().await;
    server.up("s").await;
    server.fake.last().die("killed from outside");
    let ended = async { while metrics(&server, target("s")).await[0]["running"] == true {} };
    within(ended).await;
    let expected = json!({
        "namespace": "default", "name": "s", "running": false, "cpu_usage": null, "memory_usage": null,
        "disk_usage": null,
    });
    assert_eq!(metrics(&server, target("s")).await, [expected]);
    assert!(metrics(&server, json!({"namespace": "default"})).await.is_empty());
    server.call("sandbox.metrics.get", target("other")).await.flat(404, 4001);
}
