// SPDX-License-Identifier: Apache-2.0
//! What clients may name, in a server that is near to what trusts it.

use super::*;
use crate::registry::config::NamedBy;
use crate::registry::credentials::{Credentials, Secret, save_login};
use crate::registry::places::Place;

fn for_clients(servers: &[&Server]) -> RegistryConfig {
    RegistryConfig { named_by: NamedBy::Clients, ..config(servers) }
}

async fn serving() -> Server {
    Server::start(|_, _| as_manifest(manifest(b"x"))).await
}

#[tokio::test]
async fn what_a_client_names_near_this_machine_is_not_asked_however_it_is_written() {
    let inside = serving().await;
    let port = inside.address.port();
    let rows = [
        (format!("127.0.0.1:{port}"), "a loopback address"),
        (format!("localhost:{port}"), "a loopback address"),
        (format!("[::1]:{port}"), "a loopback address"),
        (format!("[::ffff:127.0.0.1]:{port}"), "a loopback address"),
        (format!("[::ffff:0:127.0.0.1]:{port}"), "a loopback address"),
        (format!("0.0.0.0:{port}"), "a loopback address"),
        (format!("127.1:{port}"), "a loopback address"),
        (format!("2130706433:{port}"), "a loopback address"),
        (format!("inside.test:{port}"), "a loopback address"),
        (format!("both.test:{port}"), "a loopback address"),
        ("10.0.0.1".into(), "a private network"),
        ("172.16.0.1".into(), "a private network"),
        ("192.168.0.1:5000".into(), "a private network"),
        ("100.64.0.1".into(), "a private network"),
        ("224.0.0.1".into(), "a private network"),
        ("[fd12::1]".into(), "a private network"),
        ("[ff02::1]".into(), "a private network"),
        ("169.254.7.7".into(), "a link-local address"),
        ("[fe80::1]".into(), "a link-local address"),
        ("169.254.169.254".into(), "metadata"),
        ("metadata.test".into(), "metadata"),
    ];
    for (registry, place) in rows {
        // Both with the question which scheme it speaks and without it.
        for plain_http in [vec![], vec![registry.clone()]] {
            let mut config = RegistryConfig { plain_http, ..for_clients(&[]) };
            config.world.hosts.insert("inside.test".into(), vec![ip("127.0.0.1")]);
            config.world.hosts.insert("both.test".into(), vec![ip("8.8.8.8"), ip("127.0.0.1")]);
            config.world.hosts.insert("metadata.test".into(), vec![ip("169.254.169.254")]);
            let error = resolve(config, &format!("{registry}/app")).await.unwrap_err();
            assert!(told(&error).contains(place), "{registry}: {error}");
            assert!(error.to_string().contains("--trusted-registry") || place == "metadata", "{error}");
        }
    }
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn what_the_operator_named_is_asked_for_clients_too() {
    let home = tempfile::tempdir().unwrap();
    let inside = serving().await;
    save_login(home.path(), &inside.name(), "ann", Secret::new("s3cret")).unwrap();
    let reference = format!("{}/app", inside.name());
    let kept = Credentials::load(home.path(), None).unwrap();
    let plain = || for_clients(&[&inside]);
    let ways = [
        RegistryConfig { default_registry: inside.name(), ..plain() },
        RegistryConfig { trusted_hosts: vec![inside.name()], ..plain() },
        RegistryConfig { trusted_hosts: vec!["127.0.0.1".into()], ..plain() },
        RegistryConfig { credentials: kept, ..plain() },
        RegistryConfig { named_by: NamedBy::Operator, ..plain() },
    ];
    for (number, config) in ways.into_iter().enumerate() {
        let asked = resolve(config, &reference).await;
        assert!(asked.is_ok(), "{number}: {asked:?}");
    }
    let mut mirrored = plain();
    mirrored.mirrors.insert("r.example".into(), vec![inside.name()]);
    resolve(mirrored.clone(), "r.example/app").await.unwrap();
    resolve(mirrored, &reference).await.unwrap();

    let docker = home.path().join("config.json");
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"YW5uOnMzY3JldA=="}}}}}}"#, inside.name());
    fs_err::write(&docker, text).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let credentials = Credentials::load(elsewhere.path(), Some(&docker)).unwrap();
    let error = resolve(RegistryConfig { credentials, ..plain() }, &reference).await.unwrap_err();
    assert!(matches!(error, RegistryError::Near { .. }), "Docker's logins are not named for us: {error}");
}

#[tokio::test]
async fn a_registry_on_the_internet_cannot_lead_a_client_inside() {
    let inside = Server::start(|_, _| Reply::ok(b"a layer".as_slice())).await;
    let to = inside.url("/blob");
    let outside = Server::start_at("127.0.0.2", move |_, _| Reply::redirect(to.clone())).await;
    let mut config = for_clients(&[&outside, &inside]);
    config.world.places.insert(ip("127.0.0.2"), Place::Public);
    let error = fetch(config, &outside, b"a layer", &mut Memory::default()).await.unwrap_err();
    assert!(told(&error).contains("a loopback address"), "{error}");
    assert_eq!((outside.asked().len(), inside.asked().len()), (1, 0));
}
