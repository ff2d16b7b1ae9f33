// SPDX-License-Identifier: Apache-2.0
//! Keys in one home, used from several sides.

use super::*;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    /// Returns a directory that is not there yet.
    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("home")
    }

    /// Opens the keys as another process would.
    fn open(&self) -> Keys {
        Keys::open(&self.path()).unwrap()
    }
}

fn one(name: &str) -> Scope {
    scope(name).unwrap()
}

fn why(result: Result<Caller, Refusal>) -> &'static str {
    match result {
        Err(Refusal::Invalid(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_good_from_its_making_to_its_revocation_wherever_that_happens() {
    let home = Home::new();
    let (server, command) = (home.open(), home.open());
    let key = command.make(one("team"), Lifetime::default()).unwrap();
    let caller = server.check(&key.text).unwrap();
    assert_eq!(caller, Caller::with_key(&key.info.id.to_string(), one("team")));
    let all = command.make(Scope::All, Lifetime::default()).unwrap();
    assert!(!server.check(&all.text).unwrap().is_scoped());
    assert_eq!(command.revoke(key.info.id).unwrap(), Revoked::Now);
    assert_eq!(why(server.check(&key.text)), "revoked");
    assert_eq!(command.revoke(key.info.id).unwrap(), Revoked::Before);
    assert!(server.check(&all.text).is_ok());
    assert!(matches!(command.revoke(KeyId(1)), Err(KeysError::Unknown(KeyId(1)))));
}

#[test]
fn a_key_outlives_its_time_by_the_leeway_and_no_second_more() {
    let home = Home::new();
    let keys = home.open();
    let key = keys.make(Scope::All, Lifetime::parse("1s").unwrap()).unwrap();
    assert_eq!(key.info.expires, key.info.made + 1);
    assert!(keys.check_at(&key.text, key.info.expires + 60).is_ok());
    assert_eq!(why(keys.check_at(&key.text, key.info.expires + 61)), "expired");
    assert_eq!(key.info.state_at(key.info.expires + 60), KeyState::Active);
    assert_eq!(key.info.state_at(key.info.expires + 61), KeyState::Expired);
}

#[test]
fn the_store_must_know_a_key_as_it_was_made() {
    let home = Home::new();
    let keys = home.open();
    let key = keys.make(one("team"), Lifetime::default()).unwrap();
    let good = key.info.claims();
    let signed = |claims: Claims| token::write(&claims, &keys.secret);
    assert_eq!(signed(good.clone()), key.text);
    for other in [
        Claims { scope: Scope::All, ..good.clone() },
        Claims { expires: good.expires + 1, ..good.clone() },
        Claims { made: good.made - 1, ..good.clone() },
    ] {
        assert_eq!(why(keys.check(&signed(other))), "not the one that was made");
    }
    assert_eq!(why(keys.check(&signed(Claims { id: KeyId(7), ..good }))), "unknown");
    let elsewhere = Home::new().open().make(one("team"), Lifetime::default()).unwrap();
    assert_eq!(why(keys.check(&elsewhere.text)), "broken or not signed here");
    assert!(matches!(keys.check("nonsense"), Err(Refusal::NoKey)));
}

#[test]
fn the_last_use_is_noted_to_the_minute() {
    let home = Home::new();
    let command = home.open();
    let key = command.make(Scope::All, Lifetime::default()).unwrap();
    let used = |at: i64| {
        // Ending it waits until all is written.
        let server = home.open();
        server.check_at(&key.text, key.info.made + at).unwrap();
        drop(server);
        command.list().unwrap()[0].last_used.map(|last| last - key.info.made)
    };
    assert_eq!(command.list().unwrap()[0].last_used, None);
    assert_eq!(used(5), Some(5));
    assert_eq!(used(64), Some(5));
    assert_eq!(used(65), Some(65));
    assert_eq!(used(30), Some(65));
}

#[test]
fn keys_are_listed_by_age_with_what_is_known_of_them() {
    let home = Home::new();
    let keys = home.open();
    assert!(keys.list().unwrap().is_empty());
    let first = keys.make(one("a"), Lifetime::default()).unwrap().info;
    let second = keys.make(Scope::All, Lifetime::parse("1y").unwrap()).unwrap().info;
    keys.revoke(first.id).unwrap();
    let listed = home.open().list().unwrap();
    let found = |id| listed.iter().find(|info| info.id == id).unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(*found(second.id), second);
    assert_eq!(found(first.id).state(), KeyState::Revoked);
    assert_eq!((found(first.id).made, found(first.id).expires), (first.made, first.expires));
}

#[test]
fn many_that_make_keys_at_once_in_a_new_home_all_get_good_ones() {
    let home = Home::new();
    let start = std::sync::Barrier::new(8);
    let texts: Vec<String> = std::thread::scope(|scope| {
        let make = || {
            start.wait();
            home.open().make(Scope::All, Lifetime::default()).unwrap().text
        };
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect()
    });
    let keys = home.open();
    assert!(texts.iter().all(|text| keys.check(text).is_ok()));
    assert_eq!(keys.list().unwrap().len(), 8);
}

#[test]
fn nothing_secret_is_shown_for_debugging() {
    let home = Home::new();
    let keys = home.open();
    let key = keys.make(Scope::All, Lifetime::default()).unwrap();
    let secret = fs_err::read_to_string(home.path().join("server.key")).unwrap();
    let shown = format!("{keys:?} {key:?} {:#?}", keys.list());
    assert!(!shown.contains(&secret) && !shown.contains("msb_") && !shown.contains("eyJ"), "{shown}");
}

#[test]
fn a_store_that_is_locked_by_others_is_told_and_not_waited_for() {
    let home = Home::new();
    let keys = home.open();
    let key = keys.make(Scope::All, Lifetime::default()).unwrap();
    let other = database::open(&home.path()).unwrap();
    other.execute_batch("begin immediate; delete from keys").unwrap();
    assert!(keys.check(&key.text).is_ok(), "a writer keeps no reader waiting");
    other.execute_batch("rollback; drop table keys").unwrap();
    assert!(matches!(keys.check(&key.text), Err(Refusal::Store(_))));
}

/// Prints what a check costs: `cargo test --release -p server cost_of_a_check -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_check() {
    const CHECKS: u32 = 20_000;
    let home = Home::new();
    let keys = home.open();
    let key = keys.make(Scope::All, Lifetime::default()).unwrap();
    let mut took = Vec::new();
    for _ in 0..CHECKS {
        let start = std::time::Instant::now();
        keys.check(&key.text).unwrap();
        took.push(start.elapsed());
    }
    took.sort();
    println!("check: median {:?}, 99 of 100 below {:?}", took[took.len() / 2], took[took.len() * 99 / 100]);
}
