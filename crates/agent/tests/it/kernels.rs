// SPDX-License-Identifier: Apache-2.0
//! Kernels: state, time, death, and the line in front of them.

use std::time::{Duration, Instant};

use protocol::agent::{Channel, Language, RunEnd};
use protocol::limits::{BACKGROUND_OUTPUT_BYTES_MAX, KERNEL_QUEUE_MAX};

use crate::sandbox::Sandbox;

#[test]
fn variables_persist_between_runs_and_connections() {
    let sandbox = Sandbox::start();
    assert_eq!(
        sandbox.python("x = 20\ndef f(n):\n\n    return n * 2\nprint('defined')").stdout(),
        "defined\n"
    );
    let answer = sandbox.python("print(f(x) + 2)");
    assert_eq!((answer.end.clone(), answer.stdout().as_str()), (RunEnd::Success, "42\n"));
}

#[test]
fn node_keeps_its_variables_too() {
    let sandbox = Sandbox::start_with(|config| config.prestart = Some(Language::Node));
    let mut connection = sandbox.connect();
    assert_eq!(connection.run(Language::Node, "var y = 20", None).end, RunEnd::Success);
    let answer = connection.run(Language::Node, "console.log(y + 22); console.error('e')", None);
    assert_eq!((answer.stdout().as_str(), answer.stderr().as_str()), ("42\n", "e\n"));
    let answer = connection.run(Language::Node, "throw new Error('boom')", None);
    assert_eq!(answer.end, RunEnd::Error);
    assert!(answer.stderr().contains("boom"));
}

#[test]
fn an_endless_loop_in_node_ends_and_the_next_run_works() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    connection.run(Language::Node, "var kept = 3", None);
    let began = Instant::now();
    let answer = connection.run(Language::Node, "console.log('in'); for (;;) {}", Some(500));
    assert_eq!((answer.end.clone(), answer.stdout().as_str()), (RunEnd::TimedOut { kept: true }, "in\n"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(connection.run(Language::Node, "console.log(kept)", None).stdout(), "3\n");
}

#[test]
fn an_error_is_reported_and_its_traceback_complete() {
    let sandbox = Sandbox::start();
    for _ in 0..200 {
        let answer = sandbox.python("1 / 0");
        assert_eq!(answer.end, RunEnd::Error);
        assert!(
            answer.stderr().trim_end().ends_with("ZeroDivisionError: division by zero"),
            "{}",
            answer.stderr()
        );
    }
}

#[test]
fn output_without_a_newline_and_in_megabytes_is_whole() {
    let sandbox = Sandbox::start();
    assert_eq!(sandbox.python("print('x', end='')").stdout(), "x");
    let answer = sandbox.python("print('y' * 5_000_000)");
    assert_eq!(answer.bytes(Channel::Stdout).len(), 5_000_001);
    assert_eq!(answer.end, RunEnd::Success);
}

#[test]
fn large_source_text_arrives() {
    let sandbox = Sandbox::start();
    let code = format!("t = '{}'\nprint(len(t))", "z".repeat(1_500_000));
    assert_eq!(sandbox.python(&code).stdout(), "1500000\n");
}

#[test]
fn an_endless_loop_is_interrupted_and_its_state_kept() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    let answer =
        connection.run(Language::Python, "n = 7\nprint('in', flush=True)\nwhile True: pass", Some(500));
    assert_eq!((answer.end.clone(), answer.stdout().as_str()), (RunEnd::TimedOut { kept: true }, "in\n"));
    assert_eq!(connection.run(Language::Python, "print(n)", None).stdout(), "7\n");
}

#[test]
fn what_ignores_the_interrupt_is_killed_with_its_children() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    let code = "import signal, subprocess, time\nsubprocess.Popen(['sleep', '4730'], start_new_session=True)\n\
                signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf', flush=True)\nwhile True: time.sleep(9)";
    let began = Instant::now();
    let answer = connection.run(Language::Python, code, Some(500));
    assert_eq!((answer.end.clone(), answer.stdout().as_str()), (RunEnd::TimedOut { kept: false }, "deaf\n"));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(sandbox.count("^sleep 4730"), 0);
    assert_eq!(connection.run(Language::Python, "print('fresh')", None).stdout(), "fresh\n");
}

#[test]
fn a_timeout_works_also_when_nobody_reads_the_output() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    connection.request_run(Language::Python, "while True: print('flood' * 100)", Some(300));
    std::thread::sleep(Duration::from_millis(3500));
    let other = sandbox.python("print('next')");
    assert_eq!((other.end.clone(), other.stdout().as_str()), (RunEnd::Success, "next\n"));
    assert!(matches!(connection.run_answer().end, RunEnd::TimedOut { .. }));
}

#[test]
fn a_timeout_of_zero_is_over_at_once() {
    let sandbox = Sandbox::start();
    let answer = sandbox.connect().run(Language::Python, "print('never')", Some(0));
    assert_eq!((answer.end.clone(), answer.stdout().as_str()), (RunEnd::TimedOut { kept: true }, ""));
}

/// Code that writes to the driver's own pipes, wherever the driver keeps them.
fn write_to_all_pipes(bytes: &str) -> String {
    let code = "\
import os
places = {n: os.readlink(f'/proc/self/fd/{n}') for n in range(3, 1024) if os.path.exists(f'/proc/self/fd/{n}')}
outputs = [os.readlink(f'/proc/self/fd/{n}') for n in (1, 2)]
sent = set()
for n, place in places.items():
    if place.startswith('pipe:') and place not in outputs:
        try: sent.add((os.write(n, BYTES), place)[1])
        except OSError: pass
";
    code.replace("BYTES", bytes)
}

#[test]
fn every_death_is_reported_and_the_next_run_works() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    let mut check = |code: &str, code_expected: Option<i32>, signal: Option<i32>| {
        let answer = connection.run(Language::Python, &format!("print('last', flush=True)\n{code}"), None);
        assert_eq!(answer.end, RunEnd::Died { code: code_expected, signal }, "{code}");
        assert_eq!(answer.stdout(), "last\n", "{code}");
        assert_eq!(
            connection.run(Language::Python, "print('next')", None).stdout(),
            "next\n",
            "after {code}"
        );
    };
    check("import os; os._exit(3)", Some(3), None);
    check("import ctypes; ctypes.string_at(0)", None, Some(11));
    check("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, Some(9));
    check(&format!("{}\nwhile True: pass", write_to_all_pipes("b'\\xff' * 20")), None, Some(9));
    check("import os; os.kill(os.getppid(), 9)\nwhile True: pass", None, Some(9));
}

#[test]
fn descendants_do_not_outlive_a_dead_kernel() {
    let sandbox = Sandbox::start();
    let code =
        "import os, subprocess\nsubprocess.Popen('setsid sleep 4731 & exit', shell=True).wait()\nos._exit(0)";
    assert_eq!(sandbox.python(code).end, RunEnd::Died { code: Some(0), signal: None });
    assert_eq!(sandbox.count("^sleep 4731"), 0);
}

#[test]
fn a_kernel_that_dies_idle_is_replaced() {
    let sandbox = Sandbox::start();
    let code =
        "import os, threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), os._exit(1))).start()";
    assert_eq!(sandbox.python(code).end, RunEnd::Success);
    std::thread::sleep(Duration::from_millis(500));
    let answer = sandbox.python("print('time' in dir())");
    assert_eq!((answer.end.clone(), answer.stdout().as_str()), (RunEnd::Success, "False\n"));
}

#[test]
fn a_reply_forged_by_user_code_ends_nothing() {
    let sandbox = Sandbox::start();
    let forge = write_to_all_pipes("struct.pack('<BQI', 18, 12345, 1) + b'\\0'");
    let code = format!("import struct, time\n{forge}\ntime.sleep(0.3)\nprint('still running', len(sent))");
    assert_eq!(sandbox.python(&code).stdout(), "still running 1\n");
}

#[test]
fn late_output_comes_before_the_next_and_is_marked() {
    let sandbox = Sandbox::start();
    let code = "import threading, time\n\
                threading.Thread(target=lambda: (time.sleep(0.2), print('late', flush=True))).start()\nprint('now')";
    let answer = sandbox.python(code);
    assert_eq!((answer.stdout().as_str(), answer.bytes(Channel::BackgroundStdout).len()), ("now\n", 0));
    std::thread::sleep(Duration::from_millis(500));
    let answer = sandbox.python("print('then')");
    assert_eq!(answer.chunks[0], (Channel::BackgroundStdout, b"late\n".to_vec()));
    assert_eq!(answer.stdout(), "then\n");
}

#[test]
fn late_output_is_bounded_and_never_blocks_who_writes_it() {
    let sandbox = Sandbox::start();
    let code = "import subprocess\np = subprocess.Popen(['head', '-c', '3000000', '/dev/zero'])";
    assert_eq!(sandbox.python(code).end, RunEnd::Success);
    std::thread::sleep(Duration::from_millis(500));
    let answer = sandbox.python("print(p.wait(timeout=5))");
    assert_eq!(answer.stdout(), "0\n");
    assert_eq!(answer.bytes(Channel::BackgroundStdout).len(), BACKGROUND_OUTPUT_BYTES_MAX);
    let notice = answer.bytes(Channel::BackgroundStderr);
    assert!(String::from_utf8(notice).unwrap().contains("left out"));
}

#[test]
fn runs_wait_in_line_and_one_too_many_is_refused() {
    let sandbox = Sandbox::start();
    let mut first = sandbox.connect();
    first.run(Language::Python, "import time\nseen = []", None);
    first.request_run(Language::Python, "time.sleep(1)\nseen.append('first')", None);
    std::thread::sleep(Duration::from_millis(200));
    let mut waiting: Vec<_> = (0..KERNEL_QUEUE_MAX)
        .map(|number| {
            let mut connection = sandbox.connect();
            connection.request_run(Language::Python, &format!("seen.append({number})"), None);
            std::thread::sleep(Duration::from_millis(10));
            connection
        })
        .collect();
    let answer = sandbox.python("print('one too many')");
    assert!(matches!(answer.end, RunEnd::Unavailable { .. }), "{answer:?}");
    // One of the waiting leaves: its place is free again, and its code never runs.
    drop(waiting.remove(5));
    std::thread::sleep(Duration::from_millis(100));
    let mut last = sandbox.connect();
    last.request_run(Language::Python, "print(seen)", None);
    for connection in waiting.iter_mut().chain([&mut first]) {
        assert_eq!(connection.run_answer().end, RunEnd::Success);
    }
    let numbers = (0..KERNEL_QUEUE_MAX).filter(|number| *number != 5).map(|number| number.to_string());
    let expected: Vec<String> = std::iter::once("'first'".to_owned()).chain(numbers).collect();
    assert_eq!(last.run_answer().stdout(), format!("[{}]\n", expected.join(", ")));
}

#[test]
fn a_closed_connection_interrupts_its_execution_and_frees_the_kernel() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    connection.request_run(Language::Python, "kept = 1\nprint('in', flush=True)\nwhile True: pass", None);
    assert!(connection.receive().is_some());
    drop(connection);
    let began = Instant::now();
    assert_eq!(sandbox.python("print(kept)").stdout(), "1\n");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn a_kernel_does_not_get_the_agents_descriptors() {
    let sandbox = Sandbox::start();
    let answer = sandbox
        .python("import os\nprint(sorted(int(n) for n in os.listdir('/proc/self/fd') if int(n) < 200)[:4])");
    // 3 is the directory that is being listed.
    assert_eq!(answer.stdout(), "[0, 1, 2, 3]\n");
}

#[test]
fn a_missing_interpreter_is_named() {
    let sandbox = Sandbox::start_with(|config| config.envs = vec![("PATH".into(), "/nowhere".into())]);
    match sandbox.python("1").end {
        RunEnd::Unavailable { message } => {
            assert!(message.contains("no python3") && message.contains("/nowhere"), "{message}");
            assert!(
                message.contains("microsandbox/python") && message.contains("commands work"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_interpreter_that_does_not_get_ready_is_quoted() {
    let sandbox = Sandbox::start_with(|config| {
        let bin = format!("{}/bin", config.workdir.as_deref().unwrap());
        config.envs[0].1 = format!("{bin}:{}", config.envs[0].1);
    });
    sandbox.sh("mkdir bin; printf '#!/bin/sh\\necho broken indeed >&2; exit 7\\n' >bin/python3; chmod +x bin/python3");
    match sandbox.python("1").end {
        RunEnd::Unavailable { message } => {
            assert!(message.contains("exited with code 7") && message.contains("broken indeed"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}
