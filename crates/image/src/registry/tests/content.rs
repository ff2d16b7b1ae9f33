// SPDX-License-Identifier: Apache-2.0
//! What is sent for a manifest, an index or a blob.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::limits::{IMAGE_LAYERS_MAX, MANIFEST_BYTES_MAX};

use super::server::Body;
use super::*;
use crate::registry::ContentError;

/// Serves documents by the last part of their path.
async fn serving(documents: Vec<(String, Reply)>) -> Server {
    Server::start(move |asked, _| {
        let name = asked.path.rsplit('/').next().unwrap_or_default();
        let found = documents.iter().find(|(of, _)| of == name || of == "*");
        found.map_or_else(|| Reply::status(404), |(_, reply)| reply.clone())
    })
    .await
}

async fn refusal(reply: Reply) -> String {
    let server = serving(vec![("*".into(), reply)]).await;
    let error = resolve(config(&[&server]), &format!("{}/app:1", server.name())).await.unwrap_err();
    told(&error)
}

#[tokio::test]
async fn a_manifest_is_kept_as_it_came() {
    let bytes = manifest(b"layer");
    let server = serving(vec![("1".into(), as_manifest(bytes.clone()))]).await;
    let resolved = resolve(config(&[&server]), &format!("{}/app:1", server.name())).await.unwrap();
    assert_eq!(resolved.manifest, bytes);
    assert_eq!(resolved.manifest_digest.as_ref(), digest(&bytes));
    assert_eq!(resolved.layers[0].size(), 5);
    assert_eq!(resolved.index_digest, None);
    let asked = &server.asked()[0];
    assert_eq!(asked.path, "/v2/app/manifests/1");
    assert!(asked.header("accept").unwrap().contains("manifest.list.v2"));
    assert_eq!(asked.header("authorization"), None);
}

#[tokio::test]
async fn the_image_of_the_platform_is_chosen_through_nested_indexes() {
    let (wanted, other) = (manifest(b"for amd64"), manifest(b"for arm64"));
    let inner = index(&[entry(&other, MANIFEST, "linux/arm64"), entry(&wanted, MANIFEST, "linux/amd64")]);
    let outer = index(&[described(INDEX, &inner)]);
    let server = serving(vec![
        ("latest".into(), Reply::ok(outer.clone()).with("content-type", INDEX)),
        (digest(&inner), Reply::ok(inner).with("content-type", INDEX)),
        (digest(&wanted), as_manifest(wanted.clone())),
    ])
    .await;
    let resolved = resolve(config(&[&server]), &format!("{}/app", server.name())).await.unwrap();
    assert_eq!(resolved.manifest, wanted);
    assert_eq!(resolved.index_digest.unwrap().as_ref(), digest(&outer));
}

#[tokio::test]
async fn what_has_another_digest_or_size_is_refused() {
    let server = serving(vec![("*".into(), as_manifest(manifest(b"other")))]).await;
    let wanted = digest(&manifest(b"wanted"));
    let reference = format!("{}/app:1@{wanted}", server.name());
    let error = resolve(config(&[&server]), &reference).await.unwrap_err();
    assert!(told(&error).contains(&wanted), "{error}");
    assert!(server.paths()[0].ends_with(&wanted), "the digest decides, not the tag");

    let said = as_manifest(manifest(b"x")).with("docker-content-digest", wanted.clone());
    assert!(refusal(said).await.contains(&wanted));

    let image = manifest(b"x");
    let lying = described(MANIFEST, &image).replace(&format!(r#""size":{}"#, image.len()), r#""size":7"#);
    let server = serving(vec![
        ("1".into(), Reply::ok(index(&[lying])).with("content-type", INDEX)),
        ("*".into(), as_manifest(image)),
    ])
    .await;
    let error = resolve(config(&[&server]), &format!("{}/app:1", server.name())).await.unwrap_err();
    assert!(told(&error).contains("7 are expected"), "{error}");
}

#[tokio::test]
async fn an_index_that_loops_or_never_ends_is_refused() {
    // It says that it contains itself, so it is sent for every digest that it names.
    let loops = index(&[described(INDEX, b"itself")]);
    let error = refusal(Reply::ok(loops).with("content-type", INDEX)).await;
    assert!(error.contains("digest") || error.contains("bytes"), "{error}");

    let mut documents = Vec::new();
    let mut document = index(&[described(INDEX, b"nobody asks for this")]);
    for _ in 0..10 {
        documents.push((digest(&document), Reply::ok(document.clone()).with("content-type", INDEX)));
        document = index(&[described(INDEX, &document)]);
    }
    documents.push(("1".into(), Reply::ok(document).with("content-type", INDEX)));
    let server = serving(documents).await;
    let error = resolve(config(&[&server]), &format!("{}/app:1", server.name())).await.unwrap_err();
    assert!(told(&error).contains("3 indexes"), "{error}");
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn indexes_that_lead_to_each_other_are_refused() {
    let digests = ["a", "b"].map(|letter| format!("sha256:{}", letter.repeat(64)).parse().unwrap());
    let error = super::super::descend(&digests, &digests[0]).unwrap_err();
    assert!(matches!(error, ContentError::Unexpected { wrong, .. } if wrong.contains("each other")));
}

#[tokio::test]
async fn a_manifest_of_a_hundred_megabytes_is_not_read_to_its_end() {
    let huge = vec![b' '; 100 * 1024 * 1024];
    let without_length = Reply::sent(Body::Unmeasured(huge.clone())).with("content-type", MANIFEST);
    let server = serving(vec![("*".into(), without_length)]).await;
    let error = resolve(config(&[&server]), &format!("{}/app:1", server.name())).await.unwrap_err();
    assert!(told(&error).contains("4194304"), "{error}");
    assert_eq!(server.asked().len(), 1, "it is not asked for again");
    // The kernel's buffers took some beyond what was read.
    assert!(server.sent_bytes() < 8 * MANIFEST_BYTES_MAX, "{}", server.sent_bytes());

    assert!(refusal(as_manifest(huge)).await.contains("4194304"));
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let config_text = described(CONFIG, b"{}");
    let with_layers = |layers: &str| {
        as_manifest(format!(r#"{{"schemaVersion":2,"config":{config_text},"layers":[{layers}]}}"#))
    };
    let many = vec![described(LAYER, b"x"); IMAGE_LAYERS_MAX + 1].join(",");
    let rows = [
        (Reply::ok("<html>t0ken</html>").with("content-type", "text/html"), "web page"),
        (as_manifest("<html>hello</html>"), "JSON"),
        (Reply::ok(manifest(b"x")).with("content-type", "image/png"), "image/png"),
        (with_layers(""), "no layers"),
        (with_layers(&many), "128 layers"),
        (with_layers(&described("application/x-evil", b"x")), "application/x-evil"),
        (as_manifest(""), "JSON"),
        (Reply::status(404), "has no app:1"),
        (Reply::status(403), "msb registry login"),
        (Reply::status(418), "418"),
    ];
    for (reply, reason) in rows {
        let shown = format!("{reply:?}").chars().take(80).collect::<String>();
        let error = refusal(reply).await;
        assert!(error.contains(reason), "{shown}: {error}");
    }
}

#[tokio::test]
async fn a_blob_is_never_longer_than_its_descriptor_says() {
    let wanted = b"0123456789".to_vec();
    let long = [wanted.clone(), b"more".to_vec()].concat();
    for body in [Body::Whole(long.clone()), Body::Unmeasured(long), Body::Endless] {
        let server = serving(vec![("*".into(), Reply::sent(body))]).await;
        let mut sink = Memory::default();
        let error = fetch(config(&[&server]), &server, &wanted, &mut sink).await.unwrap_err();
        assert!(told(&error).contains("10 are expected"), "{error}");
        assert!(sink.bytes.len() <= 10);
    }
    for body in [Body::Whole(b"short".to_vec()), Body::Unmeasured(b"short".to_vec())] {
        let server = serving(vec![("*".into(), Reply::sent(body))]).await;
        let error = fetch(config(&[&server]), &server, &wanted, &mut Memory::default()).await.unwrap_err();
        assert!(told(&error).contains("10"), "{error}");
    }
}

#[tokio::test]
async fn a_tag_that_moves_changes_nothing_that_was_resolved() {
    let moved = Arc::new(AtomicBool::new(false));
    let (old, new) = (b"old layer".to_vec(), b"new layer".to_vec());
    let server = Server::start({
        let moved = Arc::clone(&moved);
        move |asked, _| {
            let layer = [&old, &new].into_iter().find(|layer| asked.path.ends_with(&digest(layer)));
            match layer {
                Some(layer) => Reply::ok(layer.clone()),
                None if moved.load(Ordering::SeqCst) => as_manifest(manifest(&new)),
                None => as_manifest(manifest(&old)),
            }
        }
    })
    .await;
    let config = config(&[&server]);
    let reference = Reference::parse(&format!("{}/app:1", server.name()), &config).unwrap();
    let registry = Registry::new(config).unwrap();
    let resolved = registry.resolve(&reference, &amd64()).await.unwrap();
    moved.store(true, Ordering::SeqCst);
    let mut sink = Memory::default();
    registry.fetch(&reference, &resolved.layers[0], &mut sink).await.unwrap();
    assert_eq!(sink.bytes, b"old layer");
    assert_eq!(server.asked().len(), 2, "the tag was read once");
}
