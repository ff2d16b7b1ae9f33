// SPDX-License-Identifier: Apache-2.0
//! Connections that break, drip or are turned away, and mirrors.

use std::time::Instant;

use protocol::limits::{REGISTRY_ATTEMPTS_MAX, REGISTRY_OPERATIONS_MAX};

use super::server::Body;
use super::*;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Answers a request for a part with it.
fn part(asked: &Asked, bytes: &[u8]) -> Reply {
    let Some(range) = asked.header("range") else { return Reply::ok(bytes) };
    let start: usize = range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    Reply { status: 206, ..Reply::ok(&bytes[start..]) }.with("content-range", range)
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_was() {
    let blob = bytes(400_000);
    let server = Server::start({
        let blob = blob.clone();
        move |asked, count| {
            let reply = part(asked, &blob);
            match (count, reply.body) {
                (0..3, Body::Whole(bytes)) => Reply { body: Body::Cut(bytes, 100_000), ..reply },
                (_, body) => Reply { body, ..reply },
            }
        }
    })
    .await;
    let mut sink = Memory::default();
    fetch(config(&[&server]), &server, &blob, &mut sink).await.unwrap();
    assert!(sink.bytes == blob && sink.restarts == 0);
    let ranges: Vec<Option<String>> =
        server.asked().iter().map(|asked| asked.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[3].as_deref(), Some("bytes=300000-"));
}

#[tokio::test]
async fn a_download_of_another_day_goes_on_too() {
    let blob = bytes(1000);
    let server = Server::start({
        let blob = blob.clone();
        move |asked, _| part(asked, &blob)
    })
    .await;
    let mut sink = Memory { bytes: blob[..600].to_vec(), restarts: 0 };
    fetch(config(&[&server]), &server, &blob, &mut sink).await.unwrap();
    assert!(sink.bytes == blob);
    assert_eq!(server.asked()[0].header("range"), Some("bytes=600-"));
    fetch(config(&[&server]), &server, &blob, &mut sink).await.unwrap();
    assert_eq!(server.asked().len(), 1, "what is all there is not asked for");
    let mut sink = Memory { bytes: bytes(2000), restarts: 0 };
    fetch(config(&[&server]), &server, &blob, &mut sink).await.unwrap();
    assert!(sink.bytes == blob && sink.restarts == 1, "more than everything is nothing");
}

#[tokio::test]
async fn a_server_that_knows_no_parts_sends_everything_again() {
    let blob = bytes(1000);
    let server = Server::start({
        let blob = blob.clone();
        move |_, _| Reply::ok(blob.clone())
    })
    .await;
    let mut sink = Memory { bytes: blob[..600].to_vec(), restarts: 0 };
    fetch(config(&[&server]), &server, &blob, &mut sink).await.unwrap();
    assert!(sink.bytes == blob && sink.restarts == 1);
}

#[tokio::test]
async fn a_server_that_begins_anew_for_ever_is_given_up_on() {
    let blob = bytes(8_000_000);
    let server = Server::start({
        let blob = blob.clone();
        move |asked, count| {
            // A part of a good length, then everything from the beginning, and so on: there is always progress.
            let reply = if count % 2 == 0 { Reply::ok(blob.clone()) } else { part(asked, &blob) };
            match reply.body {
                Body::Whole(bytes) => Reply { body: Body::Cut(bytes, 2_000_000), ..reply },
                body => Reply { body, ..reply },
            }
        }
    })
    .await;
    let error = fetch(config(&[&server]), &server, &blob, &mut Memory::default()).await.unwrap_err();
    assert!(told(&error).contains("began anew"), "{error}");
}

#[tokio::test]
async fn a_part_that_nobody_asked_for_is_refused() {
    let blob = bytes(1000);
    for range in ["bytes 0-399/1000", "bytes 600-999/9999", "nonsense", ""] {
        let reply = Reply { status: 206, ..Reply::ok(&blob[600..]) }.with("content-range", range);
        let server = Server::start(move |_, _| reply.clone()).await;
        let mut sink = Memory { bytes: blob[..600].to_vec(), restarts: 0 };
        let error = fetch(config(&[&server]), &server, &blob, &mut sink).await.unwrap_err();
        assert!(told(&error).contains("when asked for what follows byte 600"), "{error}");
        assert_eq!(sink.bytes.len(), 600);
    }
}

#[tokio::test]
async fn a_registry_that_is_busy_is_asked_again_as_it_wishes() {
    for status in [429, 500, 502, 503, 504] {
        let server = Server::start(move |_, count| match count {
            0 => Reply::status(status).with("retry-after", "1"),
            1 => Reply::status(status),
            _ => as_manifest(manifest(b"x")),
        })
        .await;
        let began = Instant::now();
        resolve(config(&[&server]), &format!("{}/app", server.name())).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(1), "{status} came back after {:?}", began.elapsed());
        assert_eq!(server.asked().len(), 3);
    }
}

#[tokio::test]
async fn a_registry_that_stays_busy_or_wants_hours_is_given_up_on() {
    let server = Server::start(|_, _| Reply::status(503)).await;
    let error = resolve(config(&[&server]), &format!("{}/app", server.name())).await.unwrap_err();
    assert!(told(&error).contains("status 503"), "{error}");
    assert_eq!(server.asked().len(), REGISTRY_ATTEMPTS_MAX as usize);

    let server = Server::start(|_, _| Reply::status(429).with("retry-after", "7200")).await;
    let error = resolve(config(&[&server]), &format!("{}/app", server.name())).await.unwrap_err();
    assert!(told(&error).contains("7200 seconds"), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_drip_is_given_up_on() {
    let blob = bytes(100_000);
    let server = Server::start({
        let blob = blob.clone();
        move |_, _| Reply::sent(Body::Drip(blob.clone(), Duration::from_millis(10)))
    })
    .await;
    let began = Instant::now();
    let mut sink = Memory::default();
    let error = fetch(config(&[&server]), &server, &blob, &mut sink).await.unwrap_err();
    assert!(told(&error).contains("at least 65536"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(server.asked().len(), REGISTRY_ATTEMPTS_MAX as usize);

    let server = Server::start(|_, _| {
        as_manifest("").with("x", "y").with_body(Body::Drip(manifest(b"x"), Duration::from_millis(20)))
    })
    .await;
    let error = resolve(config(&[&server]), &format!("{}/app", server.name())).await.unwrap_err();
    assert!(told(&error).contains("did not arrive"), "{error}");

    let late = Server::start(|_, _| Reply::sent(Body::Late(manifest(b"x"), Duration::from_secs(30)))).await;
    let error = resolve(config(&[&late]), &format!("{}/app", late.name())).await.unwrap_err();
    assert!(told(&error).contains("did not begin to answer"), "{error}");
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_told() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = resolve(config(&[]), &format!("{address}/app")).await.unwrap_err();
    assert!(told(&error).contains("refused") && error.to_string().contains(&address.to_string()), "{error}");
    let error = resolve(config(&[]), "nobody.invalid/app").await.unwrap_err();
    assert!(told(&error).contains("nobody.invalid"), "{error}");
}

#[tokio::test]
async fn mirrors_are_tried_first_and_the_registry_at_last() {
    let origin = Server::start(|_, _| as_manifest(manifest(b"x"))).await;
    let good = Server::start_at("127.0.0.2", |_, _| as_manifest(manifest(b"x"))).await;
    let broken =
        Server::start_at("127.0.0.3", |_, _| Reply::ok("<html>").with("content-type", "text/html")).await;
    let mut all = config(&[&origin, &good, &broken]);
    all.mirrors.insert(origin.name(), vec![broken.name(), good.name()]);
    let reference = format!("{}/app", origin.name());
    resolve(all.clone(), &reference).await.unwrap();
    assert_eq!((broken.asked().len(), good.asked().len(), origin.asked().len()), (1, 1, 0));

    all.mirrors.insert(origin.name(), vec![broken.name()]);
    resolve(all.clone(), &reference).await.unwrap();
    assert_eq!(origin.asked().len(), 1);

    let wrong = digest(b"nothing has this");
    let error = resolve(all, &format!("{reference}@{wrong}")).await.unwrap_err();
    let text = told(&error);
    assert!(text.contains(&broken.name()) && text.contains(&origin.name()), "{text}");
}

#[tokio::test]
async fn what_a_bad_mirror_sent_of_a_blob_is_forgotten() {
    let blob = bytes(1000);
    let mirror = Server::start_at("127.0.0.2", |_, _| Reply::sent(Body::Unmeasured(vec![0; 1001]))).await;
    let origin = Server::start({
        let blob = blob.clone();
        move |asked, _| part(asked, &blob)
    })
    .await;
    let mut config = config(&[&origin, &mirror]);
    config.mirrors.insert(origin.name(), vec![mirror.name()]);
    let mut sink = Memory::default();
    fetch(config.clone(), &origin, &blob, &mut sink).await.unwrap();
    assert!(sink.bytes == blob);

    let reference = Reference::parse(&format!("{}/app", origin.name()), &config).unwrap();
    let (registry, before) = (Registry::new(config).unwrap(), mirror.asked().len());
    registry.fetch_from_origin(&reference, &descriptor(&blob), &mut Memory::default()).await.unwrap();
    assert_eq!(mirror.asked().len(), before);
}

#[tokio::test]
async fn no_more_than_some_are_asked_for_at_once() {
    let server =
        Server::start(|_, _| Reply::sent(Body::Late(b"x".to_vec(), Duration::from_millis(30)))).await;
    let config = config(&[&server]);
    let reference = Reference::parse(&format!("{}/app", server.name()), &config).unwrap();
    let registry = Registry::new(config).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (registry, reference) = (registry.clone(), reference.clone());
        tasks.spawn(
            async move { registry.fetch(&reference, &descriptor(b"x"), &mut Memory::default()).await },
        );
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert!(
        server.most_open() > 1 && server.most_open() <= REGISTRY_OPERATIONS_MAX + 1,
        "{}",
        server.most_open()
    );
}
