// SPDX-License-Identifier: Apache-2.0
//! Several threads and processes with one store: work done once, and nothing taken that somebody needs.
//!
//! The other processes are this test program, called with [`CHILD`] in its environment.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use image::store::{Prune, Store, StoreError};
use oci_spec::image::Digest;

use crate::sample::{descriptor, digest, names, put, put_image, put_layer, write_at};

/// What the process does, and the directory of images.
const CHILD: &str = "MSB_TEST_STORE_CHILD";
const CHILD_IMAGES: &str = "MSB_TEST_STORE_IMAGES";

/// Another process with the same store. It writes a line after each step; it is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    input: Option<ChildStdin>,
}

impl Process {
    pub(crate) fn start(what: &str, images: &Path) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "store_sharing::the_other_process", "--nocapture", "--test-threads=1"]);
        command.env(CHILD, what).env(CHILD_IMAGES, images);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let input = child.stdin.take();
        Process { child, lines, input }
    }

    /// Waits for the next step; `None` when the process has ended.
    pub(crate) fn step(&mut self) -> Option<String> {
        loop {
            let line = self.lines.next()?.unwrap();
            if let Some((_, step)) = line.split_once("step: ") {
                return Some(step.to_owned());
            }
        }
    }

    /// Kills it at once, wherever it is.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end and returns the last steps.
    fn finish(mut self) -> Vec<String> {
        self.input = None;
        let steps = std::iter::from_fn(|| self.step()).collect();
        assert!(self.child.wait().unwrap().success());
        steps
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn step(text: &str) {
    let mut output = std::io::stdout();
    writeln!(output, "step: {text}").unwrap();
    output.flush().unwrap();
}

fn wait_for_end_of_input() {
    for line in std::io::stdin().lines() {
        line.unwrap();
    }
}

/// Not a test of its own: what the other processes of these tests do.
#[test]
fn the_other_process() {
    let (Ok(what), Ok(images)) = (std::env::var(CHILD), std::env::var(CHILD_IMAGES)) else { return };
    let store = Store::open(Path::new(&images)).unwrap();
    match what.as_str() {
        "lease" => {
            let image = store.find("image").unwrap().unwrap();
            let _lease = store.lease(&image.manifest_digest).unwrap();
            step("leased");
            wait_for_end_of_input();
        }
        "hold" => {
            let store = store.holding().unwrap();
            put(&store, b"being pulled");
            put_layer(&store, "being pulled");
            step("held");
            wait_for_end_of_input();
        }
        "half" => {
            let mut writer = store.begin_blob(&descriptor(b"both halves")).unwrap().unwrap();
            writer.write(b"both").unwrap();
            step("half");
            wait_for_end_of_input();
        }
        "layer" => {
            step("ready");
            wait_for_end_of_input();
            let diff_id = digest(b"shared layer");
            let path = store.add_layer(&diff_id, |root| {
                step("unpacked");
                for file in 0..200 {
                    write_at(root, &format!("file-{file}"), b"x");
                }
                Ok::<Digest, std::io::Error>(diff_id.clone())
            });
            assert_eq!(fs_err::read_dir(path.unwrap()).unwrap().count(), 200);
        }
        "writer" => crate::crash::write_everything(&store),
        "churn" => crate::crash::churn(&store),
        other => panic!("no such child: {other}"),
    }
}

#[test]
fn a_second_writer_of_a_blob_waits_and_then_finds_it_there() {
    let images = tempfile::tempdir().unwrap();
    let store = Store::open(images.path()).unwrap();
    let wanted = descriptor(b"fetched once");
    let mut first = store.begin_blob(&wanted).unwrap().unwrap();
    let (answer, answered) = mpsc::channel();
    let waiting = std::thread::spawn({
        let (images, wanted) = (images.path().to_owned(), wanted.clone());
        move || answer.send(Store::open(&images).unwrap().begin_blob(&wanted).unwrap().is_none()).unwrap()
    });
    first.write(b"fetched ").unwrap();
    assert!(answered.recv_timeout(Duration::from_millis(100)).is_err(), "it has to wait");
    first.write(b"once").unwrap();
    first.finish().unwrap();
    assert!(answered.recv().unwrap(), "it is there, and not fetched again");
    waiting.join().unwrap();
}

#[test]
fn a_second_writer_goes_on_when_the_first_is_killed() {
    let images = tempfile::tempdir().unwrap();
    let mut other = Process::start("half", images.path());
    assert_eq!(other.step().as_deref(), Some("half"));
    let store = Store::open(images.path()).unwrap();
    let (answer, answered) = mpsc::channel();
    let waiting = std::thread::spawn({
        let store = store.clone();
        move || {
            let mut writer = store.begin_blob(&descriptor(b"both halves")).unwrap().unwrap();
            answer.send(writer.have()).unwrap();
            writer.write(b" halves").unwrap();
            writer.finish().unwrap();
        }
    });
    assert!(answered.recv_timeout(Duration::from_millis(100)).is_err(), "it has to wait");
    other.kill();
    assert_eq!(answered.recv().unwrap(), 4, "what the killed one wrote is not written again");
    waiting.join().unwrap();
    assert_eq!(store.read_blob(&descriptor(b"both halves")).unwrap(), b"both halves");
}

#[test]
fn processes_that_want_one_layer_unpack_it_once() {
    let images = tempfile::tempdir().unwrap();
    let mut processes: Vec<Process> = (0..4).map(|_| Process::start("layer", images.path())).collect();
    for process in &mut processes {
        assert_eq!(process.step().as_deref(), Some("ready"));
    }
    // The end of their input lets them all begin.
    for process in &mut processes {
        process.input = None;
    }
    let unpacked: usize = processes.into_iter().map(|process| process.finish().len()).sum();
    assert_eq!(unpacked, 1);
    assert_eq!(names(images.path(), "layers").len(), 1);
    assert!(names(images.path(), "making").is_empty());
}

#[test]
fn nothing_is_taken_that_a_living_process_leases_and_all_when_it_was_killed() {
    let images = tempfile::tempdir().unwrap();
    let store = Store::open(images.path()).unwrap();
    let image = put_image(&store, "image", &["base", "top"]);
    put_image(&store, "unused", &["base", "unused"]);
    let mut other = Process::start("lease", images.path());
    assert_eq!(other.step().as_deref(), Some("leased"));

    let pruned = store.prune(Prune::Images).unwrap();
    assert_eq!((pruned.images, pruned.layers), (vec!["unused".to_owned()], 1));
    let removed = store.remove("image").unwrap().unwrap();
    assert!(removed.in_use, "it says that something stays");
    assert_eq!((removed.pruned.blobs, removed.pruned.layers), (0, 0));
    assert!(store.find("image").unwrap().is_none(), "the reference is gone all the same");
    store.prune(Prune::Loose).unwrap();
    for layer in &image.layers {
        assert!(store.layer(&layer.diff_id).unwrap().join("file").is_file());
    }
    other.kill();
    let pruned = Store::open(images.path()).unwrap().prune(Prune::Loose).unwrap();
    assert_eq!((pruned.blobs, pruned.layers), (4, 2));
    crate::sample::assert_empty(images.path(), "the holder was killed");
}

#[test]
fn what_a_running_pull_has_stays_until_it_ends() {
    let images = tempfile::tempdir().unwrap();
    let store = Store::open(images.path()).unwrap();
    let mut other = Process::start("hold", images.path());
    assert_eq!(other.step().as_deref(), Some("held"));
    let mine = store.holding().unwrap();
    let blob = put(&mine, b"of this process");
    let pruned = store.prune(Prune::Images).unwrap();
    assert_eq!((pruned.blobs, pruned.layers), (0, 0));
    other.kill();
    let pruned = store.prune(Prune::Images).unwrap();
    assert_eq!((pruned.blobs, pruned.layers), (1, 1));
    assert!(store.has_blob(blob.digest(), blob.size()));
    drop(mine);
    assert_eq!(store.prune(Prune::Loose).unwrap().blobs, 1);
}

#[test]
fn a_lease_is_only_given_for_what_is_there() {
    let images = tempfile::tempdir().unwrap();
    let store = Store::open(images.path()).unwrap();
    let error = store.lease(&digest(b"no manifest")).unwrap_err();
    assert!(matches!(error, StoreError::Missing(_)), "{error}");
    let image = put_image(&store, "", &["base"]);
    let lease = store.lease(&image.manifest_digest).unwrap();
    let pruned = store.prune(Prune::Images).unwrap();
    assert_eq!((pruned.blobs, pruned.layers), (0, 0), "an image without a reference is held too");
    drop(lease);
    assert_eq!(names(images.path(), "leases"), Vec::<String>::new());
    store.tag(&image::store::ImageRecord { reference: "image".to_owned(), ..image.clone() }).unwrap();
    for layer in names(images.path(), "layers") {
        fs_err::rename(images.path().join("store-v1/layers").join(&layer), images.path().join(&layer))
            .unwrap();
    }
    fs_err::remove_file(images.path().join("store-v1/blobs").join(image.layers[0].blob.digest())).unwrap();
    assert!(matches!(store.lease(&image.manifest_digest).unwrap_err(), StoreError::Missing(_)));
}

#[test]
fn threads_that_pull_and_prune_at_once_never_lose_what_they_hold() {
    let images = tempfile::tempdir().unwrap();
    let store = Store::open(images.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..15 {
                    let held = store.holding().unwrap();
                    let reference = format!("image-{thread}-{round}");
                    let image = put_image(&held, &reference, &["shared", &reference]);
                    for layer in &image.layers {
                        assert!(held.layer(&layer.diff_id).unwrap().join("file").is_file());
                        assert!(held.has_blob(&layer.blob, layer.size));
                    }
                    let _lease = store.lease(&image.manifest_digest).unwrap();
                    drop(held);
                    store.remove(&reference).unwrap().unwrap();
                    assert!(store.layer(&image.layers[1].diff_id).unwrap().join("file").is_file());
                }
            });
        }
        for _ in 0..20 {
            store.prune(Prune::Loose).unwrap();
        }
    });
    store.prune(Prune::Images).unwrap();
    crate::sample::assert_empty(images.path(), "all threads");
}
