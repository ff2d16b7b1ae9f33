// SPDX-License-Identifier: Apache-2.0
//! Images that have next to nothing: no shell, no C library, no `/etc`, no `/tmp`, no language.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use protocol::agent::{CommandEnd, Language, RunEnd};
use runtime::{Backend, RootfsMount, Sandbox, SandboxSpec};

use crate::host::{Host, command, missing, run};

const FINE: CommandEnd = CommandEnd::Exited { code: 0 };

/// Says who it is, where, and what it has; needs nothing but itself.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char cwd[4096];
    printf("%d %d %s %s\n", getuid(), getgid(), getcwd(cwd, sizeof cwd), getenv("HOME"));
    for (int i = 1; i < argc; i++) puts(argv[i]);
    return 0;
}
"#;

/// Makes an image that holds one program.
fn image(host: &Host, flags: &[&str]) -> PathBuf {
    let image = host.home.join("image");
    fs_err::create_dir_all(&image).unwrap();
    fs_err::write(host.home.join("program.c"), PROGRAM).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(flags).arg("-o").arg(image.join("program")).arg(host.home.join("program.c"));
    assert!(compiler.status().unwrap().success(), "the C compiler and its static library are needed");
    image
}

async fn start(host: &Host, image: &Path, change: impl FnOnce(&mut SandboxSpec)) -> Arc<dyn Sandbox> {
    let mut spec = host.spec();
    spec.rootfs.mounts = vec![RootfsMount { at: "/".into(), lowers: vec![image.to_owned()] }];
    change(&mut spec);
    host.backend.start(spec).await.unwrap()
}

fn not_started(end: CommandEnd) -> String {
    match end {
        CommandEnd::NotStarted { message } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_image_of_one_static_program_runs_it() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("bare");
    let image = image(&host, &["-static"]);
    let sandbox = start(&host, &image, |_| {}).await;
    assert_eq!(command(&sandbox, "/program", &["x"]).await, (FINE, "0 0 /root /root\nx\n".to_owned()));
    let (end, _) = command(&sandbox, "/bin/sh", &["-c", "true"]).await;
    assert!(not_started(end).contains("no such file"));
    let (end, _) = command(&sandbox, "sh", &["-c", "true"]).await;
    assert!(not_started(end).contains("command not found: 'sh' is not in PATH (/usr/local/sbin:"));
    sandbox.stop().await.unwrap();

    let sandbox = start(&host, &image, |spec| {
        spec.user = Some("65534:65534".into());
        spec.workdir = Some("/w/o/rk".into());
        spec.envs = vec![("PATH".into(), "/".into())];
        spec.prestart = Some(Language::Python);
    })
    .await;
    assert_eq!(command(&sandbox, "program", &[]).await, (FINE, "65534 65534 /w/o/rk /\n".to_owned()));
    sandbox.stop().await.unwrap();

    let mut spec = host.spec();
    spec.rootfs.mounts = vec![RootfsMount { at: "/".into(), lowers: vec![image] }];
    spec.user = Some("app".into());
    let Err(error) = host.backend.start(spec).await else { panic!("it started") };
    assert!(error.to_string().contains("no user 'app' in the image's /etc/passwd"), "{error}");
    host.close().await;
}

#[tokio::test]
async fn a_language_that_the_image_lacks_is_named_with_what_helps() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("nolanguage");
    let image = image(&host, &["-static"]);
    let sandbox = start(&host, &image, |spec| spec.envs = vec![("PATH".into(), "/opt/x:/y".into())]).await;
    for (language, name, help) in
        [(Language::Python, "python3", "microsandbox/python"), (Language::Node, "node", "microsandbox/node")]
    {
        let (end, _) = run(&sandbox, language, "1").await;
        let RunEnd::Unavailable { message } = end else { panic!("{end:?}") };
        assert!(message.contains(&format!("this image has no {name}")), "{message}");
        assert!(message.contains("PATH: /opt/x:/y") && message.contains(help), "{message}");
    }
    assert_eq!(command(&sandbox, "/program", &[]).await.0, FINE);
    sandbox.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn a_program_for_another_c_library_says_so() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("libc");
    let image = image(&host, &[]);
    fs_err::copy(image.join("program"), image.join("python3")).unwrap();
    fs_err::write(image.join("script"), "#!/program -x\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(image.join("script"), mode).unwrap();
    let sandbox = start(&host, &image, |spec| spec.envs = vec![("PATH".into(), "/bin:/".into())]).await;
    for path in ["/program", "/script"] {
        let (end, _) = command(&sandbox, path, &[]).await;
        let message = not_started(end);
        assert!(message.contains("'/program' asks for '/lib"), "{message}");
        assert!(message.contains("which is not in this image") && message.contains("C library"), "{message}");
    }
    let (end, _) = command(&sandbox, "program", &[]).await;
    let message = not_started(end);
    assert!(message.contains("cannot start 'program'") && message.contains("C library"), "{message}");
    let (end, _) = run(&sandbox, Language::Python, "1").await;
    let RunEnd::Unavailable { message } = end else { panic!("{end:?}") };
    assert!(message.contains("cannot start //python3") && message.contains("C library"), "{message}");
    sandbox.stop().await.unwrap();
    host.close().await;
}
