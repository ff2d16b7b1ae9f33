// SPDX-License-Identifier: Apache-2.0
//! What is told of a sandbox and its wall, and what is demanded of it.

use protocol::isolation::{Level, ProtectionName};
use serde_json::{Value, json};

use crate::client::{Server, target};

#[tokio::test]
async fn a_sandbox_tells_what_it_is_and_each_protection() {
    let server = Server::start().await;
    server.up("s").await;
    server.fake.behave(|behaviour| behaviour.lacks = vec![ProtectionName::SwapLimit]);
    let mut info = server.result("sandbox.get", target("s")).await;
    let isolation = info["isolation"].take();
    let expected = json!({
        "name": "s", "namespace": "default", "running": true, "image": server.image, "image_source": "directory",
        "memory": 512, "cpus": 1.0, "isolation": null,
    });
    assert_eq!(info, expected);
    assert_eq!(isolation["kind"], "fake");
    let protections = isolation["protections"].as_array().unwrap();
    assert_eq!(protections.len(), ProtectionName::ALL.len());
    for protection in protections {
        if protection["name"] == "swap_limit" {
            let off = json!({"name": "swap_limit", "on": false, "why": "it was taken away", "mend": "give it back"});
            assert_eq!(*protection, off);
        } else {
            assert_eq!(*protection, json!({"name": protection["name"], "on": true}));
        }
    }
}

#[tokio::test]
async fn fractions_of_processors_are_told_and_a_stopped_sandbox_has_no_wall() {
    let server = Server::start().await;
    let config = json!({"image": server.image, "memory": 256, "cpu_millis": 1500});
    let params = json!({"sandbox": "s", "namespace": "default", "config": config});
    server.result("sandbox.start", params).await;
    server.result("sandbox.stop", target("s")).await;
    let info = server.result("sandbox.get", target("s")).await;
    assert_eq!((&info["running"], &info["isolation"]), (&json!(false), &Value::Null));
    assert_eq!((&info["memory"], &info["cpus"]), (&json!(256), &json!(1.5)));
}

#[tokio::test]
async fn an_unknown_sandbox_is_said_to_be() {
    let server = Server::start().await;
    server.call("sandbox.get", target("other")).await.flat(404, 4001);
    server.call("sandbox.get", json!({"sandbox": "s", "namespace": "*"})).await.flat(400, 2001);
}

#[tokio::test]
async fn a_wall_below_what_is_demanded_starts_nothing_and_says_what_is_missing() {
    let server = Server::demanding(Level::Limited).await;
    server
        .fake
        .behave(|behaviour| behaviour.lacks = vec![ProtectionName::SwapLimit, ProtectionName::DiskLimit]);
    let text = server.call("sandbox.start", server.start_params("s")).await.flat(500, 5002);
    for part in ["'limited'", "swap_limit", "it was taken away", "give it back"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("disk_limit"), "{text}");
    assert_eq!(server.fake.counts().live, 0, "what was started is gone");
    server.call("sandbox.get", target("s")).await.flat(404, 4001);
    server.fake.behave(|behaviour| behaviour.lacks = vec![ProtectionName::DiskLimit]);
    server.up("s").await;
}
