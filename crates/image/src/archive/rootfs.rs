// SPDX-License-Identifier: Apache-2.0
//! A tar of a root file system becomes an image of one layer, with a configuration that says nothing but its platform.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use oci_spec::image::Descriptor;
use oci_spec::image::MediaType;
use serde_json::json;

use super::compression::{Compression, Gzipped, gzip};
use super::load::{Image, Intake, LoadOptions};
use super::{ArchiveError, docker};
use crate::store::ImageRecord;
use crate::store::digests;

/// Loads a root file system: the file as it was sent becomes the layer's blob, compressed if it was not.
pub(super) fn load(
    intake: &mut Intake,
    mut as_sent: File,
    compression: Compression,
    mut plain: File,
    options: &LoadOptions<'_>,
) -> Result<Vec<ImageRecord>, ArchiveError> {
    if options.reference.is_none() {
        return Err(ArchiveError::NoReference);
    }
    let packed = if compression == Compression::None { compressed(intake, &mut plain)? } else { None };
    let (layer, diff_id) = match packed {
        Some((packed, mut file)) => {
            let layer = Descriptor::new(MediaType::ImageLayerGzip, packed.size, packed.digest);
            intake.add_from(&layer, &mut rewound(&mut file)?)?;
            (layer, packed.diff_id)
        }
        None => {
            let (diff_id, _) = docker::measure(&mut rewound(&mut plain)?)?;
            let (blob, _) = docker::measure(&mut rewound(&mut as_sent)?)?;
            let size = as_sent.metadata().map_err(ArchiveError::Read)?.len();
            let layer = Descriptor::new(docker::media_type(compression), size, blob);
            intake.add_from(&layer, &mut rewound(&mut as_sent)?)?;
            (layer, diff_id)
        }
    };

    let mut platform = options.platform.split('/');
    let (os, architecture) = (platform.next().unwrap_or_default(), platform.next().unwrap_or_default());
    let mut config = json!({
        "architecture": architecture,
        "config": {},
        "os": os,
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
    });
    if let Some(variant) = platform.next() {
        config["variant"] = json!(variant);
    }
    let config = config.to_string().into_bytes();
    let config_descriptor =
        Descriptor::new(MediaType::ImageConfig, config.len() as u64, digests::of(&config));
    intake.add_from(&config_descriptor, &mut config.as_slice())?;
    let manifest = docker::manifest(config_descriptor, vec![layer]);
    let bytes = serde_json::to_vec(&manifest).expect("a manifest is plain data");
    let descriptor = Descriptor::new(MediaType::ImageManifest, bytes.len() as u64, digests::of(&bytes));
    intake.add_from(&descriptor, &mut bytes.as_slice())?;
    Image::new(descriptor, None, &manifest, &config)?.records(&[], options)
}

/// Compresses it into a file without a name, if that is of use.
fn compressed(intake: &Intake, plain: &mut File) -> Result<Option<(Gzipped, File)>, ArchiveError> {
    let mut file = intake.store.scratch()?;
    let packed = gzip(&mut rewound(plain)?, &mut file).map_err(ArchiveError::Read)?;
    Ok(packed.map(|packed| (packed, file)))
}

fn rewound(file: &mut File) -> Result<&mut File, ArchiveError> {
    file.seek(SeekFrom::Start(0)).map_err(ArchiveError::Read)?;
    Ok(file)
}
