// SPDX-License-Identifier: Apache-2.0
//! `msb image ls` and `inspect`.

use std::collections::BTreeMap;
use std::io::Write;

use image::store::{ImageRecord, LayerRecord, Store};
use serde::{Deserialize, Serialize};

use crate::args::{InspectArgs, ListArgs};
use crate::failure::Failure;
use crate::images;
use crate::output::{print, print_json, size, table, time};

/// Characters of a digest that tables have, as elsewhere.
const ID_CHARS: usize = 12;

/// Lists the images.
pub(crate) fn list(arguments: ListArgs) -> Result<(), Failure> {
    let listing = images::opened(arguments.home)?.list().map_err(Failure::Images)?;
    for broken in &listing.broken {
        // Nobody is there to read when standard error is closed.
        let _ = writeln!(
            std::io::stderr(),
            "warning: the record {0} cannot be read: {1}; pull its image again, or remove it with: msb image rm {0}",
            broken.file,
            broken.why
        );
    }
    let rows: Vec<Row<'_>> = listing.images.iter().map(Row::of).collect();
    if arguments.json {
        return print_json(&rows);
    }
    if rows.is_empty() {
        return print(
            "no images yet: fetch one with msb pull, or make one with: msb image build-base python",
        );
    }
    let texts: Vec<[String; 5]> = rows.iter().map(Row::cells).collect();
    let cells: Vec<[&str; 5]> = texts.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    print(&table(["REFERENCE", "DIGEST", "PLATFORM", "PULLED", "SIZE"], &cells))
}

/// Shows all that is known of an image.
pub(crate) fn inspect(arguments: InspectArgs) -> Result<(), Failure> {
    let store = images::opened(arguments.home)?;
    let image = images::find(&store, &arguments.name, &arguments.registry)?;
    let shown = Inspected {
        record: Row::of(&image),
        layers: &image.layers,
        configuration: configuration(&store, &image)?,
    };
    print_json(&shown)
}

/// One image as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    reference: &'a str,
    digest: String,
    index_digest: Option<String>,
    config_digest: String,
    platform: &'a str,
    pulled: String,
    size: u64,
}

impl Row<'_> {
    pub(super) fn of(image: &ImageRecord) -> Row<'_> {
        Row {
            reference: &image.reference,
            digest: image.manifest_digest.to_string(),
            index_digest: image.index_digest.as_ref().map(ToString::to_string),
            config_digest: image.config_digest.to_string(),
            platform: &image.platform,
            pulled: time(image.pulled.try_into().unwrap_or(i64::MAX)),
            size: image.size,
        }
    }

    fn cells(&self) -> [String; 5] {
        let hex = self.digest.strip_prefix("sha256:").unwrap_or(&self.digest);
        let id = hex.chars().take(ID_CHARS).collect();
        [self.reference.to_owned(), id, self.platform.to_owned(), self.pulled.clone(), size(self.size)]
    }
}

/// All that is known of an image.
#[derive(Debug, Serialize)]
struct Inspected<'a> {
    #[serde(flatten)]
    record: Row<'a>,
    layers: &'a [LayerRecord],
    #[serde(flatten)]
    configuration: Configuration,
}

/// What an image says about itself. Entry point and command are shown and not started.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Configuration {
    created: Option<String>,
    author: Option<String>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    workdir: String,
    user: String,
    exposed_ports: Vec<String>,
    volumes: Vec<String>,
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
}

/// The parts of the document that are shown; who wrote it may have written `null` for what is empty.
#[derive(Debug, Deserialize)]
struct Document {
    created: Option<String>,
    author: Option<String>,
    config: Option<DocumentConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DocumentConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

fn configuration(store: &Store, image: &ImageRecord) -> Result<Configuration, Failure> {
    let described = store.descriptor_of(&image.config_digest).map_err(Failure::Images)?;
    let bytes = store.read_blob(&described).map_err(Failure::Images)?;
    read(&bytes).map_err(|error| {
        let what = format!("the configuration {}", image.config_digest);
        Failure::Images(image::store::StoreError::Unreadable { what, why: error.to_string() })
    })
}

fn read(bytes: &[u8]) -> Result<Configuration, serde_json::Error> {
    let document: Document = serde_json::from_slice(bytes)?;
    let config = document.config.unwrap_or_default();
    let keys =
        |map: Option<BTreeMap<String, serde_json::Value>>| map.unwrap_or_default().into_keys().collect();
    Ok(Configuration {
        created: document.created,
        author: document.author,
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        workdir: config.working_dir.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        exposed_ports: keys(config.exposed_ports),
        volumes: keys(config.volumes),
        labels: config.labels.unwrap_or_default(),
        stop_signal: config.stop_signal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_says_about_itself_is_read() {
        let found = read(
            br#"{"created":"2025-01-01T00:00:00Z","os":"linux","config":{"Entrypoint":["/e"],"Cmd":null,
            "Env":["A=b"],"WorkingDir":"/w","User":"1:2","ExposedPorts":{"80/tcp":{}},"Labels":{"l":"v"}}}"#,
        );
        let expected = Configuration {
            created: Some("2025-01-01T00:00:00Z".to_owned()),
            entrypoint: vec!["/e".to_owned()],
            env: vec!["A=b".to_owned()],
            workdir: "/w".to_owned(),
            user: "1:2".to_owned(),
            exposed_ports: vec!["80/tcp".to_owned()],
            labels: BTreeMap::from([("l".to_owned(), "v".to_owned())]),
            ..Configuration::default()
        };
        assert_eq!(found.unwrap(), expected);
        for empty in ["{}", r#"{"config":null}"#, r#"{"config":{}}"#] {
            assert_eq!(read(empty.as_bytes()).unwrap(), Configuration::default(), "{empty}");
        }
        assert!(read(b"<html>").is_err());
    }
}
