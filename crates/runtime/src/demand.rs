// SPDX-License-Identifier: Apache-2.0
//! What an operator demands of every sandbox, held in front of any backend.

use std::sync::Arc;

use protocol::isolation::{Isolation, Level, Protection};

use crate::backend::{Backend, BoxFuture, Sandbox, StartError};
use crate::spec::SandboxSpec;

/// A backend whose sandboxes have a level of isolation, or do not start.
pub struct Demanding {
    backend: Arc<dyn Backend>,
    level: Level,
}

impl Demanding {
    /// Demands a level of a backend's sandboxes.
    pub fn new(backend: Arc<dyn Backend>, level: Level) -> Demanding {
        Demanding { backend, level }
    }

    /// Says what a wall lacks for a level; nothing if it is strong enough.
    pub fn lacking(level: Level, isolation: &Isolation) -> Option<String> {
        let missing = level.missing(isolation);
        if missing.is_empty() {
            return None;
        }
        let parts: Vec<String> = missing.iter().map(describe).collect();
        Some(format!("isolation '{level}' is demanded, and this machine does not give {}", parts.join("; ")))
    }
}

fn describe(missing: &Protection) -> String {
    let mut text = missing.name.to_string();
    if let Some(why) = &missing.why {
        text.push_str(&format!(" ({why})"));
    }
    if let Some(mend) = &missing.mend {
        text.push_str(&format!(", which this mends: {mend}"));
    }
    text
}

impl Backend for Demanding {
    fn start(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, StartError>> {
        Box::pin(async move {
            let sandbox = self.backend.start(spec).await?;
            let seen = Arc::clone(&sandbox);
            let isolation = tokio::task::spawn_blocking(move || seen.isolation()).await;
            let lacking = match isolation {
                Ok(isolation) => Demanding::lacking(self.level, &isolation),
                Err(error) => Some(format!("isolation '{}' cannot be checked: {error}", self.level)),
            };
            let Some(lacking) = lacking else { return Ok(sandbox) };
            if let Err(error) = sandbox.stop().await {
                tracing::error!(%error, "a sandbox that is too weak left something behind");
            }
            Err(StartError::TooWeak(lacking))
        })
    }

    fn try_walls(&self) -> BoxFuture<'_, Isolation> {
        self.backend.try_walls()
    }

    fn network(&self) -> Protection {
        self.backend.network()
    }

    fn disk_mib_max(&self) -> Option<u32> {
        self.backend.disk_mib_max()
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        self.backend.drain()
    }
}

#[cfg(test)]
mod tests {
    use protocol::isolation::ProtectionName;

    use super::*;
    use crate::fake::Fake;
    use crate::spec::{Rootfs, SandboxId};

    fn spec() -> SandboxSpec {
        SandboxSpec {
            id: SandboxId::random().unwrap(),
            hostname: "box".into(),
            rootfs: Rootfs { mounts: vec![] },
            memory_mib: 64,
            cpu_millis: 1000,
            disk_mib: 64,
            volumes: vec![],
            pids_max: 16,
            open_files_max: 1024,
            io_weight: 100,
            shm_mib: 64,
            envs: vec![],
            workdir: None,
            user: None,
            prestart: None,
            network: protocol::network::Network::None,
            ports: Vec::new(),
        }
    }

    #[tokio::test]
    async fn what_is_too_weak_does_not_start_and_is_gone() {
        let fake = Fake::new();
        let demanding = Demanding::new(Arc::new(fake.clone()), Level::Limited);
        assert!(demanding.start(spec()).await.is_ok());
        // Of a higher level.
        fake.behave(|behaviour| behaviour.lacks = vec![ProtectionName::DiskLimit]);
        assert!(demanding.start(spec()).await.is_ok());
        fake.behave(|behaviour| behaviour.lacks.push(ProtectionName::Seccomp));
        let Err(error) = demanding.start(spec()).await else { panic!("it started") };
        let text = error.to_string();
        for part in ["'limited'", "seccomp", "it was taken away", "give it back"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("disk_limit"), "{text}");
        assert_eq!(fake.counts().live, 2);
    }
}
