// SPDX-License-Identifier: Apache-2.0
//! HTTP and JSON-RPC in, life cycles owned, results out.
//!
//! The path of one request, each room doing one thing:
//!
//! ```text
//! serve    connections, stream    http     routes, origins, access, bounded body        memory   what all may hold
//! envelope a body's calls         rpc      answers         mcp      messages, tools, prompts
//! repeats  idempotency keys       caller, crowd   who asks, what that reaches, how much at once
//! api      checks, converts, delegates, maps errors; one file for each method
//! sandbox  registry, driver, admission, calls           metrics, output   what they say
//! keys     who may call                                 store    the database of what outlives the server
//! ```
//!
//! [`Server::open`] puts the whole together on a real machine; tests put [`App`] together with another backend. Nothing
//! in here builds a wall or reads an image: that is for `runtime` and `image`, which meet only in this crate.

mod api;
mod app;
mod caller;
mod connections;
mod crowd;
mod envelope;
#[cfg(test)]
mod fuzz;
mod home;
mod host;
mod http;
mod keys;
mod mcp;
mod memory;
mod metrics;
mod open;
mod output;
mod repeats;
mod rpc;
mod sandbox;
mod serve;
mod store;
mod stream;

pub use app::{Access, App};
pub use caller::Caller;
pub use home::{HomeError, is_held};
pub use host::Host;
pub use http::{HostName, HostNameError};
pub use keys::{
    KeyId, KeyInfo, KeyState, Keys, KeysError, Lifetime, LifetimeError, NewKey, NoKeyId, Refusal, Revoked,
    SecretError, scope, scope_text,
};
pub use open::{OpenError, Programs, Server, Settings, examine};
pub use runtime::network::Wish;
pub use runtime::volume::{DiskStore, DiskStoreKind};
pub use store::StoreError;
