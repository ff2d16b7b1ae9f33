// SPDX-License-Identifier: Apache-2.0
//! Where a registry may send its clients.

use url::Url;

use super::*;
use crate::registry::credentials::{Login, Secret};
use crate::registry::places::Place;
use crate::registry::transport::Transport;

const BYTES: &[u8] = b"a layer";

/// A registry that wants a password and redirects its blobs.
async fn redirecting_at(host: &str, to: String) -> Server {
    Server::start_at(host, move |asked, _| {
        if asked.header("authorization").is_none() {
            return Reply::status(401).with("www-authenticate", "Basic realm=\"x\"");
        }
        if is_blob(asked) { Reply::redirect(to.clone()) } else { Reply::ok(BYTES) }
    })
    .await
}

fn with_login(server: &Server, mut config: RegistryConfig) -> RegistryConfig {
    let login = Login::Password { username: "ann".into(), password: Secret::new("s3cret") };
    config.credentials.add(&server.name(), login);
    config
}

#[tokio::test]
async fn authorization_stays_behind_when_a_redirect_leaves_the_registry() {
    let storage = Server::start_at("127.0.0.2", |_, _| Reply::ok(BYTES)).await;
    let server = redirecting_at("127.0.0.1", storage.url("/blob?signature=x")).await;
    let mut sink = Memory::default();
    let config = with_login(&server, config(&[&server, &storage]));
    fetch(config, &server, BYTES, &mut sink).await.unwrap();
    assert_eq!(sink.bytes, BYTES);
    assert_eq!(storage.asked()[0].header("authorization"), None);
    assert_eq!(storage.asked()[0].header("referer"), None);
}

#[tokio::test]
async fn authorization_does_not_come_back_and_another_port_is_another_registry() {
    let other = Server::start(|_, _| Reply::ok(BYTES)).await;
    let server = redirecting_at("127.0.0.1", other.url("/blob")).await;
    let config_of = || with_login(&server, config(&[&server, &other]));
    fetch(config_of(), &server, BYTES, &mut Memory::default()).await.unwrap();
    assert_eq!(other.asked()[0].header("authorization"), None);

    let server = redirecting_at("127.0.0.1", "/elsewhere".into()).await;
    let config = with_login(&server, config(&[&server]));
    fetch(config, &server, BYTES, &mut Memory::default())
        .await
        .expect("the registry itself may be asked again");
}

#[tokio::test]
async fn a_redirect_that_is_no_longer_allowed_is_asked_for_anew() {
    let storage = Server::start_at("127.0.0.2", |_, count| match count {
        0 => Reply::status(403),
        _ => Reply::ok(BYTES),
    })
    .await;
    let server = redirecting_at("127.0.0.1", storage.url("/blob")).await;
    let config = with_login(&server, config(&[&server, &storage]));
    fetch(config, &server, BYTES, &mut Memory::default()).await.unwrap();
    assert_eq!(storage.asked().len(), 2);
}

#[tokio::test]
async fn redirects_without_an_end_are_not_followed() {
    let server = Server::start(|_, count| Reply::redirect(format!("/v2/{count}"))).await;
    let error = fetch(config(&[&server]), &server, BYTES, &mut Memory::default()).await.unwrap_err();
    assert!(told(&error).contains("too many"), "{error}");
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn redirects_nearer_to_this_machine_are_refused_also_through_names() {
    let inside = Server::start(|_, _| Reply::ok(BYTES)).await;
    let port = inside.address.port();
    let rows = [
        (Place::Public, inside.url("/"), "a loopback address"),
        (Place::Private, inside.url("/"), "a loopback address"),
        (Place::Public, format!("http://inside.test:{port}/"), "a loopback address"),
        (Place::Public, format!("http://localhost:{port}/"), "a loopback address"),
        (Place::Public, format!("http://0x7f.1:{port}/"), "a loopback address"),
        (Place::Public, format!("http://2130706433:{port}/"), "a loopback address"),
        (Place::Public, format!("http://[::ffff:127.0.0.1]:{port}/"), "a loopback address"),
        (Place::Public, format!("http://0.0.0.0:{port}/"), "a loopback address"),
        (Place::Public, "http://10.0.0.1/".into(), "a private network"),
        (Place::Loopback, "http://169.254.169.254/latest/".into(), "metadata"),
        (Place::Loopback, "http://metadata.test/".into(), "metadata"),
        (Place::Loopback, "http://169.254.7.7/".into(), "link-local"),
        (Place::Loopback, "http://elsewhere.example/".into(), "plain registries"),
        (Place::Loopback, "file:///etc/passwd".into(), "not of the web"),
        (Place::Loopback, "http://".into(), "no address"),
    ];
    for (place, to, reason) in rows {
        let server = redirecting_at(
            "127.0.0.2",
            format!("{to}?signature=x").replace("http://?signature=x", "http://"),
        )
        .await;
        let mut config = with_login(&server, config(&[&server]));
        for host in ["inside.test", "metadata.test", "10.0.0.1", "169.254.169.254", "169.254.7.7"] {
            config.plain_http.push(host.into());
        }
        config.world.places.insert(ip("127.0.0.2"), place);
        config.world.hosts.insert("inside.test".into(), vec![ip("127.0.0.1")]);
        config.world.hosts.insert("metadata.test".into(), vec![ip("169.254.169.254")]);
        let error = fetch(config, &server, BYTES, &mut Memory::default()).await.unwrap_err();
        assert!(told(&error).contains(reason), "{to} from {place:?}: {error}");
    }
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn a_host_that_the_operator_trusts_may_be_nearer() {
    let inside = Server::start(|_, _| Reply::ok(BYTES)).await;
    let server = redirecting_at("127.0.0.2", inside.url("/blob")).await;
    let mut config = with_login(&server, config(&[&server, &inside]));
    config.world.places.insert(ip("127.0.0.2"), Place::Public);
    config.trusted_hosts.push(inside.name());
    fetch(config, &server, BYTES, &mut Memory::default()).await.unwrap();
    assert_eq!(inside.asked()[0].header("authorization"), None, "to be trusted is not to be told");
}

#[tokio::test]
async fn tls_is_never_given_up_on_the_way() {
    let config = RegistryConfig { plain_http: vec!["plain.example".into()], ..RegistryConfig::default() };
    let transport = Transport::new(std::sync::Arc::new(config)).unwrap();
    let url = |text: &str| Url::parse(text).unwrap();
    let check = |from: &str, to: &str| transport.check_target("a redirect", &url(from), &url(to));
    for to in ["http://plain.example/", "http://127.0.0.1/", "http://r.example/"] {
        let error = check("https://r.example/v2/?signature=x", to).unwrap_err();
        assert!(told(&error).contains("from https to http"), "{error}");
    }
    assert!(check("http://plain.example/", "http://plain.example:81/").is_ok());
    assert!(check("http://plain.example/", "https://r.example/").is_ok());
    assert!(check("http://plain.example/", "http://r.example/").is_err());
}

#[tokio::test]
async fn a_registry_at_the_metadata_service_is_not_asked_even_when_it_is_named() {
    let mut config = config(&[]);
    config.plain_http.extend(["169.254.169.254".to_owned(), "metadata.test".to_owned()]);
    config.world.hosts.insert("metadata.test".into(), vec![ip("169.254.169.254")]);
    for reference in ["169.254.169.254/latest/meta-data", "metadata.test/app"] {
        let error = resolve(config.clone(), reference).await.unwrap_err();
        assert!(told(&error).contains("metadata"), "{error}");
    }
}
