// SPDX-License-Identifier: Apache-2.0
//! `image.pull`, `image.list`, `image.inspect`, `image.remove`

use std::time::Duration;

use image::store::ImageRecord;
use image::{ImageError, Images};
use protocol::calls::{
    ImageDetails, ImageInfo, ImageList, ImagePull, ImageRemoved, InspectImage, RemoveImage,
};
use protocol::errors::{ApiError, ErrorCode};
use protocol::limits::START_WAIT;

use super::start::{no_image, policy};
use crate::app::App;

pub(crate) async fn pull(app: &App, pull: ImagePull) -> Result<ImageInfo, ApiError> {
    let deadline = pull.timeout_ms.map_or(START_WAIT, Duration::from_millis);
    let pulling = app.images().pull(&pull.image, policy(pull.pull));
    match tokio::time::timeout(deadline, pulling).await {
        Ok(Ok(record)) => Ok(info(&record)),
        Ok(Err(error)) => Err(no_image(&error, &pull.image)),
        Err(_) => {
            let name = super::quoted(&pull.image);
            let text =
                format!("Image '{name}' was not pulled within {} ms; the pull goes on", deadline.as_millis());
            Err(ApiError::new(ErrorCode::StartDeadline, text)
                .remedy("ask again later, or give it a longer timeout"))
        }
    }
}

pub(crate) async fn list(app: &App) -> Result<ImageList, ApiError> {
    let records = blocking(app, String::new(), |images, _| images.list()).await?;
    Ok(ImageList { images: records.iter().map(info).collect() })
}

pub(crate) async fn inspect(
    app: &App,
    InspectImage { image }: InspectImage,
) -> Result<ImageDetails, ApiError> {
    let (record, configuration) = blocking(app, image, |images, name| images.inspect(name)).await?;
    let config = configuration.config().clone().unwrap_or_default();
    let texts = |texts: &Option<Vec<String>>| texts.clone().unwrap_or_default();
    Ok(ImageDetails {
        info: info(&record),
        layer_digests: record.layers.iter().map(|layer| layer.blob.to_string()).collect(),
        envs: texts(config.env()),
        workdir: config.working_dir().clone().filter(|text| !text.is_empty()),
        user: config.user().clone().filter(|text| !text.is_empty()),
        entrypoint: texts(config.entrypoint()),
        command: texts(config.cmd()),
    })
}

pub(crate) async fn remove(app: &App, RemoveImage { image }: RemoveImage) -> Result<ImageRemoved, ApiError> {
    let removed = blocking(app, image.clone(), |images, name| images.remove(name)).await?;
    Ok(ImageRemoved {
        reference: removed.image.map_or(image, |record| record.reference),
        in_use: removed.in_use,
        freed: removed.pruned.bytes,
    })
}

async fn blocking<T: Send + 'static>(
    app: &App,
    name: String,
    work: impl FnOnce(&Images, &str) -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ApiError> {
    let images = app.images().clone();
    let done =
        tokio::task::spawn_blocking(move || work(&images, &name).map_err(|error| no_image(&error, &name)));
    done.await.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::Failed, "Something unexpected happened")))
}

fn info(record: &ImageRecord) -> ImageInfo {
    ImageInfo {
        reference: record.reference.clone(),
        digest: record.manifest_digest.to_string(),
        platform: record.platform.clone(),
        size: record.size,
        layers: record.layers.len(),
        pulled: record.pulled,
    }
}
