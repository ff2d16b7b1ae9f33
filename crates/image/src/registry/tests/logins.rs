// SPDX-License-Identifier: Apache-2.0
//! Who asks, and who gets to know it.

use super::server::Body;
use super::*;
use crate::registry::credentials::{Credentials, Login, Secret};
use crate::registry::places::Place;

const BASIC: &str = "Basic YW5uOnMzY3JldA==";

fn login(registry: &str, mut config: RegistryConfig) -> RegistryConfig {
    let password = Secret::new("s3cret");
    config.credentials.add(registry, Login::Password { username: "ann".into(), password });
    config
}

/// Serves a manifest to whoever brings this proof; the others get the challenge.
fn guarded(asked: &Asked, proof: &str, challenge: &str) -> Reply {
    if asked.header("authorization") == Some(proof) {
        as_manifest(manifest(b"x"))
    } else {
        Reply::status(401).with("www-authenticate", challenge)
    }
}

/// A registry that is its own token server.
async fn with_tokens(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |asked, _| {
        if asked.path.starts_with("/token") {
            return answer(asked);
        }
        let host = asked.header("host").unwrap();
        guarded(asked, "Bearer t0ken", &format!(r#"Bearer realm="http://{host}/token",service="x y""#))
    })
    .await
}

fn a_token() -> Reply {
    Reply::ok(r#"{"token":"t0ken","expires_in":300}"#)
}

#[tokio::test]
async fn a_password_goes_to_a_registry_that_asks_for_it() {
    let server = Server::start(|asked, _| guarded(asked, BASIC, "Basic realm=\"x\"")).await;
    let reference = format!("{}/app", server.name());
    resolve(login(&server.name(), config(&[&server])), &reference).await.unwrap();
    assert_eq!(server.asked()[0].header("authorization"), None, "nothing is proved before it is asked for");

    let error = resolve(config(&[&server]), &reference).await.unwrap_err();
    assert!(told(&error).contains(&format!("msb registry login {}", server.name())), "{error}");
    let error = resolve(login("other.example", config(&[&server])), &reference).await.unwrap_err();
    assert!(told(&error).contains("none is known"), "{error}");
}

#[tokio::test]
async fn a_login_that_is_wrong_is_told_without_it() {
    let server =
        Server::start(|_, _| Reply::status(401).with("www-authenticate", "Basic realm=\"s3cret\"")).await;
    let asked_for = format!("{}/app", server.name());
    let error = resolve(login(&server.name(), config(&[&server])), &asked_for).await.unwrap_err();
    assert!(told(&error).contains("does not take the login"), "{error}");
    assert_eq!(server.asked().len(), 2, "a wrong password is not tried again and again");
    assert!(!format!("{:?}", login("r.example", config(&[]))).contains("s3cret"));
}

#[tokio::test]
async fn tokens_are_asked_for_once_and_brought_along() {
    let server = with_tokens(|asked| {
        assert!(asked.path.contains("service=x+y") && asked.path.contains("scope=repository%3Aapp%3Apull"));
        assert_eq!(asked.header("authorization"), None);
        a_token()
    })
    .await;
    let config = config(&[&server]);
    let reference = Reference::parse(&format!("{}/app", server.name()), &config).unwrap();
    let registry = Registry::new(config).unwrap();
    for _ in 0..3 {
        registry.clone().resolve(&reference, &amd64()).await.unwrap();
    }
    let tokens = server.paths().iter().filter(|path| path.starts_with("/token")).count();
    assert_eq!((tokens, server.asked().len()), (1, 5));
}

#[tokio::test]
async fn a_login_is_exchanged_for_a_token_and_an_old_token_for_a_new_one() {
    let server = with_tokens(|asked| {
        assert_eq!(asked.header("authorization"), Some(BASIC));
        Reply::ok(r#"{"access_token":"t0ken","expires_in":0}"#)
    })
    .await;
    let config = login(&server.name(), config(&[&server]));
    let reference = Reference::parse(&format!("{}/app", server.name()), &config).unwrap();
    let registry = Registry::new(config).unwrap();
    for _ in 0..2 {
        registry.resolve(&reference, &amd64()).await.unwrap();
    }
    let tokens = server.paths().iter().filter(|path| path.starts_with("/token")).count();
    assert_eq!(tokens, 2, "the first was over at once");
}

#[tokio::test]
async fn an_identity_token_is_posted_to_the_token_server() {
    let server = with_tokens(|asked| {
        assert_eq!(asked.method, "POST");
        assert!(
            asked.body.contains("grant_type=refresh_token") && asked.body.contains("refresh_token=s3cret")
        );
        assert!(!asked.path.contains("s3cret"));
        a_token()
    })
    .await;
    let mut config = config(&[&server]);
    config.credentials.add(&server.name(), Login::Identity(Secret::new("s3cret")));
    resolve(config, &format!("{}/app", server.name())).await.unwrap();
}

#[tokio::test]
async fn a_token_server_that_sends_no_token_is_told() {
    let long = format!(r#"{{"token":"{}"}}"#, "t".repeat(100_000));
    let rows = [
        Reply::ok("<html>s3cret</html>"),
        Reply::ok(r#"{"token":""}"#),
        Reply::ok(r#"{"token":"a\nb"}"#),
        Reply::ok(long),
        Reply::sent(Body::Endless),
        Reply::status(401),
    ];
    for reply in rows {
        let server = with_tokens(move |_| reply.clone()).await;
        let error = resolve(config(&[&server]), &format!("{}/app", server.name())).await.unwrap_err();
        assert!(told(&error).contains("token server"), "{error}");
    }
    let server = with_tokens(|_| Reply::redirect("/token2")).await;
    let error = resolve(config(&[&server]), &format!("{}/app", server.name())).await.unwrap_err();
    assert!(told(&error).contains("307"), "{error}");
}

#[tokio::test]
async fn credentials_do_not_go_to_a_token_server_on_another_host() {
    let tokens = Server::start_at("127.0.0.2", |_, _| a_token()).await;
    let realm = format!("Bearer realm=\"{}\"", tokens.url("/token"));
    let server = Server::start(move |asked, _| guarded(asked, "Bearer t0ken", &realm)).await;
    let reference = format!("{}/app", server.name());
    let with_login = || login(&server.name(), config(&[&server, &tokens]));
    let error = resolve(with_login(), &reference).await.unwrap_err();
    assert!(told(&error).contains("--trusted-registry"), "{error}");
    assert!(tokens.asked().is_empty());

    resolve(config(&[&server, &tokens]), &reference).await.expect("without credentials anybody may ask");
    let trusting = RegistryConfig { trusted_hosts: vec![tokens.name()], ..with_login() };
    resolve(trusting, &reference).await.unwrap();
    let proofs: Vec<Option<String>> =
        tokens.asked().iter().map(|asked| asked.header("authorization").map(str::to_owned)).collect();
    assert_eq!(proofs, [None, Some(BASIC.to_owned())]);
}

#[tokio::test]
async fn credentials_go_to_the_registrys_own_domain_or_one_above_it_only() {
    for (realm, may_know) in [
        ("r.corp.test", true),
        ("corp.test", true),
        ("evil.test", false),
        ("orp.test", false),
        ("test", false),
        ("x.r.corp.test", false),
        ("tokens.corp.test", false),
        ("127.0.0.1", false),
    ] {
        let server = Server::start(move |asked, _| {
            if asked.path.starts_with("/token") {
                return a_token();
            }
            let port = asked.header("host").unwrap().split_once(':').unwrap().1.to_owned();
            guarded(asked, "Bearer t0ken", &format!("Bearer realm=\"http://{realm}:{port}/token\""))
        })
        .await;
        let registry = format!("r.corp.test:{}", server.address.port());
        let mut config = login(&registry, config(&[&server]));
        for host in ["r.corp.test", realm] {
            config.plain_http.push(host.into());
            config.world.hosts.insert(host.into(), vec![ip("127.0.0.1")]);
        }
        let resolved = resolve(config, &format!("{registry}/app")).await;
        let asked = server.asked().into_iter().find(|asked| asked.path.starts_with("/token"));
        assert_eq!((resolved.is_ok(), asked.is_some()), (may_know, may_know), "{realm}");
        assert!(asked.is_none_or(|asked| asked.header("authorization") == Some(BASIC)));
    }
}

#[tokio::test]
async fn a_registry_cannot_name_a_token_server_nearer_than_itself() {
    let inside = Server::start(|_, _| a_token()).await;
    let by_name = format!("http://inside.test:{}/token", inside.address.port());
    let rows = [
        (inside.url("/token"), "a loopback address"),
        (by_name, "a loopback address"),
        ("http://169.254.169.254/latest/meta-data".into(), "metadata"),
        ("http://[::ffff:169.254.169.254]/".into(), "metadata"),
        ("http://[fe80::1]/".into(), "link-local"),
        ("http://metadata.test/computeMetadata".into(), "metadata"),
        ("ftp://r.example/".into(), "not of the web"),
        ("http://unnamed.example/".into(), "plain registries"),
        ("/token".into(), "no address"),
        ("http://u:s3cret@127.0.0.2/".into(), "credentials in its address"),
    ];
    for (realm, reason) in rows {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let server = Server::start_at("127.0.0.2", move |_, _| {
            Reply::status(401).with("www-authenticate", challenge.clone())
        })
        .await;
        let mut config = config(&[&server]);
        for host in [
            "inside.test",
            "metadata.test",
            "169.254.169.254",
            "[::ffff:a9fe:a9fe]",
            "[fe80::1]",
            "127.0.0.1",
        ] {
            config.plain_http.push(host.into());
        }
        config.world.places.insert(ip("127.0.0.2"), Place::Public);
        config.world.hosts.insert("inside.test".into(), vec![ip("127.0.0.1")]);
        config.world.hosts.insert("metadata.test".into(), vec![ip("8.8.8.8"), ip("169.254.169.254")]);
        let error = resolve(config, &format!("{}/app", server.name())).await.unwrap_err();
        assert!(told(&error).contains(reason), "{realm}: {error}");
    }
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn a_credential_helper_is_named_and_not_run() {
    let home = tempfile::tempdir().unwrap();
    let docker = home.path().join("config.json");
    fs_err::write(&docker, r#"{"credsStore": "desktop"}"#).unwrap();
    let server = Server::start(|asked, _| guarded(asked, "none", "Basic realm=\"x\"")).await;
    let mut config = config(&[&server]);
    config.credentials = Credentials::load(home.path(), Some(&docker)).unwrap();
    let error = resolve(config, &format!("{}/app", server.name())).await.unwrap_err();
    assert!(
        told(&error).contains("docker-credential-desktop") && error.to_string().contains("not run"),
        "{error}"
    );
}

#[tokio::test]
async fn mirrors_never_see_the_credentials_of_the_registry() {
    let mirror = Server::start_at("127.0.0.2", |asked, _| guarded(asked, "none", "Basic realm=\"x\"")).await;
    let server = Server::start(|asked, _| guarded(asked, BASIC, "Basic realm=\"x\"")).await;
    let mut config = login(&server.name(), config(&[&server, &mirror]));
    config.mirrors.insert(server.name(), vec![mirror.name()]);
    resolve(config, &format!("{}/app", server.name())).await.unwrap();
    assert_eq!(mirror.asked().len(), 1, "the mirror is asked first");
    assert_eq!(mirror.asked()[0].header("authorization"), None);
}

/// Asks whether a registry takes the login of `ann`.
async fn takes(server: &Server) -> Result<bool, RegistryError> {
    let registry = Registry::new(login(&server.name(), config(&[server]))).unwrap();
    registry.takes_login(&server.name()).await
}

#[tokio::test]
async fn a_login_is_checked_with_the_registry_itself() {
    let asked = |challenge: &'static str, proof: &'static str| {
        Server::start(move |asked, _| match (asked.path.as_str(), asked.header("authorization")) {
            ("/v2/", Some(given)) if given == proof => Reply::ok("{}"),
            _ => Reply::status(401).with("www-authenticate", challenge),
        })
    };
    let right = asked("Basic realm=\"x\"", BASIC).await;
    assert!(takes(&right).await.unwrap());
    assert_eq!(right.paths(), ["/v2/", "/v2/"]);

    let wrong = asked("Basic realm=\"x\"", "another").await;
    let error = takes(&wrong).await.unwrap_err();
    assert!(told(&error).contains("denies the login: it does not take the login"), "{error}");
    assert!(!error.to_string().contains("msb registry login"), "that is what was just done: {error}");
    assert_eq!(wrong.asked().len(), 2);

    let open = Server::start(|_, _| Reply::ok("{}")).await;
    assert!(!takes(&open).await.unwrap(), "it says nothing of the login");
    assert_eq!(open.asked()[0].header("authorization"), None);
    let other = Server::start(|_, _| Reply::status(404)).await;
    assert!(matches!(takes(&other).await, Err(RegistryError::NotFound { .. })));
}

#[tokio::test]
async fn a_login_is_checked_with_the_token_server_and_asks_to_pull_nothing() {
    let server = with_tokens(|asked| match asked.header("authorization") {
        Some(BASIC) => a_token(),
        _ => Reply::status(401),
    })
    .await;
    assert!(takes(&server).await.unwrap());
    assert!(server.paths().iter().all(|path| !path.contains("scope")), "{:?}", server.paths());

    let server = with_tokens(|_| Reply::status(401)).await;
    let error = takes(&server).await.unwrap_err();
    assert!(told(&error).contains("denies the login: its token server"), "{error}");
}
