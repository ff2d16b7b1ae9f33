// SPDX-License-Identifier: Apache-2.0
//! Starts and stops: idempotent, joined, bounded, cancelled.

use std::time::{Duration, Instant};

use runtime::fake::Failure;
use serde_json::{Value, json};
use server::Access;

use crate::client::{Answer, Server, run_params, start_said, target, within};

#[tokio::test]
async fn a_sandbox_starts_runs_and_stops() {
    let server = Server::start().await;
    assert_eq!(server.up("s").await, start_said("s"));
    let spec = server.fake.last().spec().clone();
    assert_eq!((spec.hostname.as_str(), spec.memory_mib, spec.cpu_millis), ("s", 512, 1000));
    assert_eq!(spec.rootfs.mounts[0].lowers, [fs_err::canonicalize(&server.image).unwrap()]);
    for _ in 0..2 {
        let stopped = server.result("sandbox.stop", target("s")).await;
        assert_eq!(stopped, "Sandbox s stopped successfully");
        assert_eq!(server.fake.counts().live, 0);
    }
    assert_eq!(server.up("s").await, start_said("s"));
    assert_eq!(server.fake.counts().starts, 2);
}

#[tokio::test]
async fn everything_that_is_configured_reaches_the_backend() {
    let server = Server::start().await;
    let mut params = server.start_params("s");
    params["config"]["envs"] = json!(["A=1", "B=x=y"]);
    params["config"]["workdir"] = json!("/srv");
    params["config"]["cpu_millis"] = json!(250);
    params["config"]["memory"] = json!(1024);
    params["config"]["pids"] = json!(100);
    params["config"]["open_files"] = json!(1000);
    params["config"]["shm"] = json!(32);
    params["config"]["io_weight"] = json!(50);
    server.result("sandbox.start", params).await;
    let spec = server.fake.last().spec().clone();
    let limits = (spec.pids_max, spec.open_files_max, spec.shm_mib, spec.io_weight);
    assert_eq!(limits, (100, 1000, 32, 50));
    assert_eq!(spec.envs, [("A", "1"), ("B", "x=y")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!((spec.workdir.as_deref(), spec.cpu_millis, spec.memory_mib), (Some("/srv"), 250, 1024));
}

#[tokio::test]
async fn starting_a_running_sandbox_changes_nothing_and_says_what_differs() {
    let server = Server::start().await;
    server.up("s").await;
    let text = server.up("s").await;
    assert!(text.starts_with("Sandbox s started successfully") && text.contains("running already"), "{text}");
    assert!(!text.contains("other values") && !text.contains("timed out waiting"), "{text}");
    let mut params = server.start_params("s");
    params["config"]["memory"] = json!(1024);
    params["config"]["envs"] = json!(["A=1"]);
    let text = server.result("sandbox.start", params).await;
    assert!(text.as_str().unwrap().contains("other values than asked for: memory, envs"), "{text}");
    let text = server.result("sandbox.start", target("s")).await;
    assert!(text.as_str().unwrap().starts_with("Sandbox s started successfully"), "{text}");
    assert_eq!(server.fake.counts().starts, 1);
}

#[tokio::test]
async fn starts_of_one_name_at_once_make_one_sandbox() {
    let server = Server::start().await;
    server.fake.behave(|behaviour| behaviour.start_takes = Some(Duration::from_millis(200)));
    let texts = tokio::join!(server.up("s"), server.up("s"), server.up("s"));
    for text in [texts.0, texts.1, texts.2] {
        assert!(text.starts_with("Sandbox s started successfully"), "{text}");
    }
    assert_eq!(server.fake.counts().starts, 1);
}

#[tokio::test]
async fn starts_that_share_a_failure_all_hear_of_it_and_nothing_is_kept() {
    let server = Server::start().await;
    server.fake.behave(|behaviour| {
        behaviour.start_takes = Some(Duration::from_millis(200));
        behaviour.start_fails = Some(Failure::Walls);
    });
    let start = || server.call("sandbox.start", server.start_params("s"));
    let (one, two) = tokio::join!(start(), start());
    for answer in [one, two] {
        let text = answer.flat(500, 5002);
        assert_eq!(text, "Sandbox 's' could not be started: its walls could not be built");
        // The step and its cause name paths of the host: they are for the log.
        assert!(
            !answer.text.contains("mount the root") && answer.json().get("cause").is_none(),
            "{answer:?}"
        );
        assert!(answer.json()["remedy"].as_str().unwrap().contains("log"));
    }
    assert_eq!(server.fake.counts().starts, 1);
    server.run("s", "1").await.flat(404, 4001);
    server.call("sandbox.stop", target("s")).await.flat(404, 4001);
}

#[tokio::test]
async fn a_full_host_and_a_full_server_say_so() {
    let server = Server::with(Access::Open, 1).await;
    server.fake.behave(|behaviour| behaviour.start_fails = Some(Failure::NoCapacity));
    let answer = server.call("sandbox.start", server.start_params("s")).await;
    assert!(answer.flat(429, 4290).contains("no free id block"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    server.fake.behave(|behaviour| behaviour.start_fails = None);
    server.up("one").await;
    let answer = server.call("sandbox.start", server.start_params("two")).await;
    assert!(answer.flat(429, 4290).contains("as many sandboxes run as this server allows"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    server.result("sandbox.stop", target("one")).await;
    server.up("two").await;
}

#[tokio::test]
async fn a_start_past_its_deadline_fails_and_nothing_is_kept() {
    let server = Server::start().await;
    server.fake.behave(|behaviour| behaviour.start_takes = None);
    for timeout_ms in [0, 100] {
        let mut params = server.start_params("s");
        params["timeout_ms"] = json!(timeout_ms);
        let text = server.call("sandbox.start", params).await.flat(504, 5004);
        assert!(text.contains("'s' was not up within") && !text.contains("timed out waiting"), "{text}");
    }
    within(server.fake.wait_until(|counts| counts.abandoned == counts.starts)).await;
    server.fake.behave(|behaviour| behaviour.start_takes = Some(Duration::ZERO));
    assert_eq!(server.up("s").await, start_said("s"));
}

#[tokio::test]
async fn a_deadline_of_one_waiter_does_not_end_the_start_of_another() {
    let server = Server::start().await;
    server.fake.behave(|behaviour| behaviour.start_takes = Some(Duration::from_millis(600)));
    let mut hasty = server.start_params("s");
    hasty["timeout_ms"] = json!(100);
    let (patient, hasty) = tokio::join!(server.up("s"), server.call("sandbox.start", hasty));
    hasty.flat(504, 5004);
    assert!(patient.starts_with("Sandbox s started successfully"), "{patient}");
    assert_eq!((server.fake.counts().starts, server.fake.counts().abandoned), (1, 0));
}

#[tokio::test]
async fn a_client_that_goes_away_during_a_start_cancels_it() {
    let server = Server::start().await;
    server.fake.behave(|behaviour| behaviour.start_takes = None);
    let stream = server.begin("sandbox.start", server.start_params("s")).await;
    within(server.fake.wait_until(|counts| counts.starts == 1)).await;
    drop(stream);
    within(server.fake.wait_until(|counts| counts.abandoned == 1)).await;
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_cancel_what_another_waits_for() {
    let server = Server::start().await;
    server.fake.behave(|behaviour| behaviour.start_takes = Some(Duration::from_millis(500)));
    let stream = server.begin("sandbox.start", server.start_params("s")).await;
    within(server.fake.wait_until(|counts| counts.starts == 1)).await;
    let other = server.up("s");
    let leave = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(stream);
    };
    let (text, ()) = tokio::join!(other, leave);
    assert!(text.starts_with("Sandbox s started successfully"), "{text}");
    assert_eq!((server.fake.counts().starts, server.fake.counts().abandoned), (1, 0));
}

#[tokio::test]
async fn a_stop_during_a_start_cancels_it() {
    let server = Server::start().await;
    server.fake.behave(|behaviour| behaviour.start_takes = None);
    let starting = server.begin("sandbox.start", server.start_params("s")).await;
    within(server.fake.wait_until(|counts| counts.starts == 1)).await;
    server.run("s", "1").await.flat(409, 4009);
    for _ in 0..2 {
        assert_eq!(server.result("sandbox.stop", target("s")).await, "Sandbox s stopped successfully");
    }
    let text = Answer::of(starting).await.flat(409, 4009);
    assert_eq!(text, "Sandbox 's' was stopped while it was starting");
    assert_eq!(server.fake.counts().abandoned, 1);
}

#[tokio::test]
async fn a_start_during_a_stop_waits_for_its_end() {
    let server = Server::start().await;
    server.up("s").await;
    let (stopped, started) = tokio::join!(
        server.call("sandbox.stop", target("s")),
        server.call("sandbox.start", server.start_params("s"))
    );
    assert_eq!((stopped.status, started.status), (200, 200));
    let counts = server.fake.counts();
    assert!(counts.starts == 2 && counts.live == 1 || counts.starts == 1 && counts.live == 0, "{counts:?}");
}

#[tokio::test]
async fn a_failed_restart_leaves_the_name_known() {
    let server = Server::start().await;
    server.up("s").await;
    server.fake.last().die("killed by signal 9");
    within(server.fake.wait_until(|counts| counts.live == 0)).await;
    server.fake.behave(|behaviour| behaviour.start_fails = Some(Failure::Walls));
    server.call("sandbox.start", server.start_params("s")).await.flat(500, 5002);
    assert!(server.run("s", "1").await.flat(409, 4009).contains("killed by signal 9"));
    server.result("sandbox.stop", target("s")).await;
}

#[tokio::test]
async fn the_unknown_is_not_found_and_the_stopped_not_running() {
    let server = Server::start().await;
    for (method, params) in [
        ("sandbox.stop", target("s")),
        ("sandbox.repl.run", run_params("s", "1")),
        ("sandbox.metrics.get", target("s")),
    ] {
        let text = server.call(method, params).await.flat(404, 4001);
        assert!(text.contains("no sandbox 's' in namespace 'default'"), "{text}");
    }
    server.up("s").await;
    server.call("sandbox.stop", json!({"sandbox": "s", "namespace": "other"})).await.flat(404, 4001);
    server.result("sandbox.stop", target("s")).await;
    let answer = server.run("s", "1").await;
    assert_eq!(answer.flat(409, 4009), "Sandbox 's' is not running: it was stopped");
    assert!(answer.json()["remedy"].as_str().unwrap().contains("sandbox.start"));
}

#[tokio::test]
async fn bad_configurations_start_nothing_and_say_what_is_allowed() {
    let server = Server::start().await;
    let rows: [(&str, Value, &str); 15] = [
        ("memory", json!(0), "from 1 to"),
        ("memory", json!(31), "from 32 to 4096 MiB on this machine, not 31"),
        ("memory", json!(4097), "from 32 to 4096 MiB on this machine, not 4097"),
        ("memory", json!(-1), "not -1"),
        ("memory", json!(512.0), "not 512.0"),
        ("cpus", json!(0), "from 1 to 255, not 0"),
        ("cpus", json!(1.0), "from 1 to 255, not 1.0"),
        ("cpus", json!(256), "from 1 to 255, not 256"),
        ("volumes", json!(["/a:/b"]), "--allow-volume"),
        ("ports", json!(["80"]), "no \"host:guest\" pair"),
        ("network", json!("public"), "cannot enforce"),
        ("network", json!({"allow": []}), "cannot enforce"),
        ("network", json!("open"), "\"none\", \"public\""),
        ("envs", json!(["A"]), "NAME=value"),
        ("image", json!(""), "empty"),
    ];
    for (key, value, said) in rows {
        let mut params = server.start_params("s");
        params["config"][key] = value;
        let text = server.call("sandbox.start", params).await.flat(400, 2001);
        assert!(text.contains(said) && text.contains(key), "{text}");
    }
    for config in [Value::Null, json!({}), json!({"memory": 512})] {
        let params = json!({"sandbox": "s", "namespace": "default", "config": config});
        let text = server.call("sandbox.start", params).await.flat(400, 2001);
        assert_eq!(text, "No configuration provided and no existing configuration found for sandbox 's'");
    }
    for image in ["debian:12", "/etc", "/nonexistent", "microsandbox/python"] {
        let params = json!({"sandbox": "s", "namespace": "default", "config": {"image": image}});
        let answer = server.call("sandbox.start", params).await;
        assert!(answer.flat(404, 4001).contains(image), "{answer:?}");
        assert!(answer.json()["remedy"].as_str().unwrap().contains("--allow"));
    }
    assert_eq!(server.fake.counts().starts, 0);
    server.call("sandbox.stop", target("s")).await.flat(404, 4001);
}

#[tokio::test]
async fn more_processors_than_there_are_become_as_many_with_a_warning() {
    let server = Server::start().await;
    let mut params = server.start_params("s");
    params["config"]["cpus"] = json!(255);
    let text = server.result("sandbox.start", params).await;
    let text = text.as_str().unwrap();
    assert!(text.starts_with("Sandbox s started successfully"), "{text}");
    assert!(text.contains("warning: cpus was lowered to what this machine has: 4 processors"), "{text}");
    assert_eq!(server.fake.last().spec().cpu_millis, 4000);
}

#[tokio::test]
async fn concurrent_stops_all_succeed_and_a_hanging_one_does_not_block_a_neighbour() {
    let server = Server::start().await;
    server.up("s").await;
    server.up("t").await;
    let stop = || server.call("sandbox.stop", target("s"));
    let (one, two) = tokio::join!(stop(), stop());
    assert_eq!((one.status, two.status), (200, 200));
    server.fake.behave(|behaviour| behaviour.stop_hangs = true);
    let _hanging = server.begin("sandbox.stop", target("t")).await;
    let since = Instant::now();
    server.up("u").await;
    assert_eq!(server.run("u", "out here").await.status, 200);
    assert!(since.elapsed() < Duration::from_secs(5));
    while server.run("t", "1").await.status == 200 {}
    assert!(server.run("t", "1").await.flat(409, 4009).contains("is being stopped"));
}
