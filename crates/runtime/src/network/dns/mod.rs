// SPDX-License-Identifier: Apache-2.0
//! The only name service of sandboxes: it listens inside the router's network namespace and asks the host's own name
//! servers from the host's.
//!
//! ```text
//! question   what is asked, and whether it may be        answer   what may be told of an answer
//! upstream   the host's name servers                     service  the two sockets
//! ```
//!
//! What it tells is no wall: the rules are. An address is open for a sandbox with an allow-list only after this module
//! has seen an allowed name lead to it. Nothing is kept from one question to the next, so that no sandbox learns from a
//! cache what others ask, and none can poison one.

mod answer;
mod question;
mod service;
mod upstream;

pub(super) use self::service::serve;
