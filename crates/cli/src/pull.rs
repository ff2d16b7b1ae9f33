// SPDX-License-Identifier: Apache-2.0
//! `msb pull`.

mod shown;

use image::pull::{Pull, PullError, PullPolicy, Puller};
use image::reference::Reference;
use image::registry::Registry;
use image::store::ImageRecord;
use std::sync::Arc;

use crate::args::PullArgs;
use crate::failure::{self, Failure};
use crate::images;
use crate::interrupt::unless_interrupted;
use crate::pull::shown::Shown;

const LEFT: &str = "what was fetched is kept whole, and the next pull goes on from there";

/// Pulls an image.
pub(crate) fn run(arguments: PullArgs) -> Result<(), Failure> {
    let home = failure::made_home(arguments.home)?;
    let reference = arguments.registry.default.reference(&arguments.reference)?;
    let store = images::store(&home)?;
    let registry = Registry::new(arguments.registry.config(&home)?).map_err(Failure::Registry)?;
    let mut puller = Puller::new(store, registry);
    let policy = PullPolicy::from(arguments.policy);
    if let Some(platform) = arguments.platform.clone() {
        puller = puller.for_platform(platform);
    }
    let wanted = arguments.platform.map(|platform| platform.to_string());
    let mut shown = Shown::new(arguments.json);
    let pulled = unless_interrupted(
        async {
            let found =
                if policy == PullPolicy::Always { None } else { here(&puller, &reference, policy).await? };
            match found.filter(|image| wanted.as_ref().is_none_or(|wanted| *wanted == image.platform)) {
                Some(image) => Ok((image, true)),
                None if policy == PullPolicy::Never => Err(failed(
                    &reference,
                    Arc::new(PullError::NotThere(format!("{reference} for that platform"))),
                )),
                None => Ok((fetch(&puller, &reference, &mut shown).await?, false)),
            }
        },
        LEFT,
    );
    // Bars go before anything else is written.
    shown.clear();
    let (image, was_here) = pulled?;
    shown.end(&image, was_here)
}

/// Finds the image in the store.
async fn here(
    puller: &Puller,
    reference: &Reference,
    policy: PullPolicy,
) -> Result<Option<ImageRecord>, Failure> {
    match puller.image(reference, PullPolicy::Never).await {
        Ok(image) => Ok(Some(image)),
        Err(error) if policy == PullPolicy::IfMissing && matches!(*error, PullError::NotThere(_)) => Ok(None),
        Err(error) => Err(failed(reference, error)),
    }
}

async fn fetch(puller: &Puller, reference: &Reference, shown: &mut Shown) -> Result<ImageRecord, Failure> {
    shown.begin(reference)?;
    let mut news = puller.pull(reference);
    loop {
        let pull: Pull = news.borrow_and_update().clone();
        shown.news(&pull)?;
        if let Some(outcome) = pull.outcome {
            return outcome.map_err(|error| failed(reference, error));
        }
        news.changed().await.map_err(|_| failed(reference, Arc::new(PullError::Lost)))?;
    }
}

fn failed(reference: &Reference, source: Arc<PullError>) -> Failure {
    Failure::Pull { reference: reference.to_string(), source }
}
