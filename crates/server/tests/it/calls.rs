// SPDX-License-Identifier: Apache-2.0
//! Runs and commands: results, failures, and what happens when somebody leaves.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Answer, Server, command_params, run_params, start_said, within};

fn lines(output: &Value, stream: &str) -> Vec<String> {
    let lines = output.as_array().unwrap().iter().filter(|line| line["stream"] == stream);
    lines.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

async fn started() -> Server {
    let server = Server::start().await;
    server.up("s").await;
    server
}

async fn run_result(server: &Server, code: &str) -> Value {
    server.result("sandbox.repl.run", run_params("s", code)).await
}

#[tokio::test]
async fn a_run_has_exactly_the_published_shape() {
    let server = started().await;
    let result = run_result(&server, "out a\nerr b\nout c").await;
    let output = json!([
        {"stream": "stdout", "text": "a"}, {"stream": "stderr", "text": "b"}, {"stream": "stdout", "text": "c"},
    ]);
    assert_eq!(result, json!({"status": "success", "language": "python", "output": output}));
}

#[tokio::test]
async fn the_language_is_echoed_as_it_was_sent() {
    let server = started().await;
    for language in ["python", "nodejs", "node", "javascript"] {
        let mut params = run_params("s", "1");
        params["language"] = json!(language);
        assert_eq!(server.result("sandbox.repl.run", params).await["language"], language);
    }
    let mut params = run_params("s", "1");
    params["language"] = json!("cobol");
    assert!(server.call("sandbox.repl.run", params).await.flat(400, 2001).contains("python, nodejs"));
}

#[tokio::test]
async fn a_run_without_a_namespace_is_in_the_default_one() {
    let server = started().await;
    let params = json!({"sandbox": "s", "language": "python", "code": "out x"});
    assert_eq!(server.result("sandbox.repl.run", params).await["status"], "success");
}

#[tokio::test]
async fn every_failure_has_its_status_and_a_line_on_standard_error() {
    let server = started().await;
    for (code, status, said) in [
        ("err Traceback\nraise", "error", "Traceback"),
        ("out no trace\nraise", "error", "Error: the code raised an exception"),
        ("interrupt", "interrupted", "Error: Execution was interrupted"),
        ("exit 3", "crashed", "Error: The interpreter exited with code 3; its variables are lost"),
        ("signal 11", "crashed", "Error: The interpreter was killed by signal 11; its variables are lost"),
        ("signal 9", "crashed", "killed by signal 9"),
        ("oom", "out_of_memory", "reached its limit of 512 MiB"),
    ] {
        let result = run_result(&server, code).await;
        assert_eq!(result["status"], status, "{code}: {result}");
        let errors = lines(&result["output"], "stderr");
        assert!(errors.iter().any(|line| line.contains(said)), "{code}: {errors:?}");
        assert_eq!(run_result(&server, "out next").await["status"], "success", "after {code}");
    }
    assert_eq!(lines(&run_result(&server, "err T\nraise").await["output"], "stderr"), ["T"]);
}

#[tokio::test]
async fn a_run_past_its_time_keeps_its_output_and_tells_of_the_variables() {
    let server = started().await;
    for (code, said) in [("out so far\nhang", "the variables are kept"), ("stuck", "its variables are lost")]
    {
        let mut params = run_params("s", code);
        params["timeout"] = json!(1);
        let result = server.result("sandbox.repl.run", params).await;
        assert_eq!(result["status"], "timeout");
        let errors = lines(&result["output"], "stderr");
        assert_eq!(errors[0], "Error: Execution timed out after 1 second");
        assert!(errors[1].contains(said), "{errors:?}");
        assert_eq!(lines(&result["output"], "stdout").len(), usize::from(code.contains("so far")));
    }
    let mut params = run_params("s", "hang");
    params["timeout"] = json!(0);
    let result = server.result("sandbox.repl.run", params).await;
    assert_eq!(lines(&result["output"], "stderr")[0], "Error: Execution timed out after 0 seconds");
}

#[tokio::test]
async fn output_of_the_background_is_apart() {
    let server = started().await;
    let result = run_result(&server, "late from a thread\nout mine").await;
    assert_eq!(lines(&result["output"], "stdout"), ["mine"]);
    assert_eq!(result["background_output"], json!([{"stream": "stdout", "text": "from a thread"}]));
}

#[tokio::test]
async fn too_much_output_is_cut_with_a_count_and_a_traceback_survives() {
    let server = started().await;
    let result = run_result(&server, "bytes 10000000\nerr Traceback\nraise").await;
    assert_eq!((&result["status"], &result["truncated"]), (&json!("error"), &json!(true)));
    assert_eq!(lines(&result["output"], "stderr"), ["Traceback"]);
    let out = lines(&result["output"], "stdout");
    let kept = out[0].len();
    assert!(kept > 8_000_000 && kept <= 8 * 1024 * 1024, "{kept}");
    let expected = format!("[{} bytes left out", 10_000_000 - kept);
    assert!(out[1].starts_with(&expected), "{}", out[1]);
    let result = run_result(&server, "lines 600000").await;
    assert_eq!(result["truncated"], true);
    assert!(result["output"].as_array().unwrap().len() <= 500_001);
    assert!(run_result(&server, "out x").await.get("truncated").is_none());
}

#[tokio::test]
async fn an_interpreter_that_is_not_there_is_an_error() {
    let server = started().await;
    assert!(server.run("s", "unavailable").await.flat(500, 5002).starts_with("Execution failed: "));
}

#[tokio::test]
async fn a_command_has_exactly_the_published_shape() {
    let server = started().await;
    for method in ["sandbox.command.run", "sandbox.command.execute"] {
        let result = server.result(method, command_params("s", "echo", &["a", "b"])).await;
        let output = json!([{"stream": "stdout", "text": "a b"}]);
        let expected = json!({
            "command": "echo", "args": ["a", "b"], "exit_code": 0, "success": true, "output": output,
        });
        assert_eq!(result, expected);
    }
    let mut params = command_params("s", "false", &[]);
    params["args"] = Value::Null;
    let result = server.result("sandbox.command.run", params).await;
    assert_eq!(
        (&result["exit_code"], &result["success"], &result["args"]),
        (&json!(1), &json!(false), &json!([]))
    );
}

#[tokio::test]
async fn a_command_ended_by_a_signal_has_exit_code_1_and_names_it() {
    let server = started().await;
    let result = server.result("sandbox.command.run", command_params("s", "signal", &["15"])).await;
    assert_eq!(
        (&result["exit_code"], &result["success"], &result["signal"]),
        (&json!(1), &json!(false), &json!(15))
    );
    assert!(result.get("out_of_memory").is_none());
    let result = server.result("sandbox.command.run", command_params("s", "oom", &[])).await;
    assert_eq!((&result["signal"], &result["out_of_memory"]), (&json!(9), &json!(true)));
}

#[tokio::test]
async fn a_command_that_is_not_there_or_too_slow_is_an_error_with_its_output() {
    let server = started().await;
    let answer = server.call("sandbox.command.run", command_params("s", "missing", &[])).await;
    let text = answer.flat(500, 5002);
    assert_eq!(text, "Command execution failed: cannot start 'missing': No such file or directory");
    let long =
        server.call("sandbox.command.run", command_params("s", "missing", &[&"x".repeat(1_000_000)])).await;
    assert!(long.text.len() < 2000, "an error repeats little of what a client sent");
    let mut params = command_params("s", "script", &["out so far", "hang"]);
    params["timeout"] = json!(1);
    let answer = server.call("sandbox.command.run", params).await;
    assert_eq!(answer.flat(500, 5002), "Command execution failed: command timed out after 1 second");
    let body = answer.json();
    assert_eq!(body["output"], json!([{"stream": "stdout", "text": "so far"}]));
    assert_eq!(body["timed_out"], true);
    assert_eq!(server.run("s", "out alive").await.status, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call_and_no_other() {
    let server = started().await;
    let leaving = server.begin("sandbox.repl.run", run_params("s", "hang")).await;
    within(server.fake.wait_until(|counts| counts.requests == 1)).await;
    drop(leaving);
    within(server.fake.wait_until(|counts| counts.cancelled == 1)).await;
    let leaving = server.begin("sandbox.command.run", command_params("s", "hang", &[])).await;
    within(server.fake.wait_until(|counts| counts.requests == 2)).await;
    let staying = server.begin("sandbox.repl.run", run_params("s", "sleep 300\nout stayed")).await;
    within(server.fake.wait_until(|counts| counts.requests == 3)).await;
    drop(leaving);
    within(server.fake.wait_until(|counts| counts.cancelled == 2)).await;
    assert_eq!(Answer::of(staying).await.json()["result"]["status"], "success");
}

#[tokio::test]
async fn a_sandbox_that_dies_under_a_call_says_how() {
    let server = started().await;
    let answer = server.run("s", "out before\ndie its agent was killed by signal 9").await;
    let text = answer.flat(500, 5002);
    assert_eq!(text, "Execution failed: the sandbox died: its agent was killed by signal 9");
    assert_eq!(answer.json()["output"], json!([{"stream": "stdout", "text": "before"}]));
    assert!(server.run("s", "1").await.flat(409, 4009).contains("its agent was killed by signal 9"));
    assert_eq!(server.up("s").await, start_said("s"));
    assert_eq!(server.run("s", "out again").await.status, 200);
}

#[tokio::test]
async fn a_sandbox_that_is_stopped_under_a_call_says_so() {
    let server = started().await;
    let call = server.begin("sandbox.command.run", command_params("s", "hang", &[])).await;
    within(server.fake.wait_until(|counts| counts.requests == 1)).await;
    server.result("sandbox.stop", crate::client::target("s")).await;
    let text = Answer::of(call).await.flat(500, 5002);
    assert_eq!(text, "Command execution failed: the sandbox was stopped");
}

#[tokio::test]
async fn connections_to_the_agent_are_used_again() {
    let server = started().await;
    for _ in 0..20 {
        assert_eq!(server.run("s", "out x").await.status, 200);
    }
    assert_eq!((server.fake.counts().connections, server.fake.counts().requests), (1, 20));
}

#[tokio::test]
async fn more_calls_than_the_agent_takes_wait_their_turn() {
    let server = started().await;
    let mut calls = Vec::new();
    for _ in 0..80 {
        calls.push(server.begin("sandbox.repl.run", run_params("s", "sleep 20\nout x")).await);
    }
    for call in calls {
        assert_eq!(Answer::of(call).await.status, 200);
    }
    assert!(server.fake.counts().connections <= 80);
}

#[tokio::test]
async fn a_sandbox_does_not_slow_its_neighbour() {
    let server = started().await;
    server.up("t").await;
    let _busy = server.begin("sandbox.repl.run", run_params("s", "hang")).await;
    let answer = tokio::time::timeout(Duration::from_secs(5), server.run("t", "out x")).await.unwrap();
    assert_eq!(answer.status, 200);
}
