// SPDX-License-Identifier: Apache-2.0
//! The words on both wires of microsandbox.
//!
//! - between a client and the server: [`calls`] (the whole API in one table), [`openrpc`] (its description), [`errors`],
//!   [`names`], [`json`];
//! - between the server and an agent: [`agent`] (frames and messages), [`config`] (what an agent is told once), [`user`]
//!   (who programs inside are, as an image names them);
//! - [`isolation`], how strong a wall is;
//! - and [`limits`], every bound that either side keeps.
//!
//! Plain data only: nothing here does I/O or knows about tokio.

pub mod agent;
pub mod calls;
pub mod config;
pub mod errors;
pub mod isolation;
pub mod json;
pub mod limits;
pub mod names;
pub mod network;
pub mod openrpc;
mod params;
mod requests;
mod results;
pub mod user;
