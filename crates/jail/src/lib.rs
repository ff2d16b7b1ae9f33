// SPDX-License-Identifier: Apache-2.0
//! The plan that `msb-jail` carries out, with whose rights, what it reports, and what it finds out about a host; and how
//! what a sandbox wrote is removed, which some can do only with the jail's rights. The steps themselves are in the program.

pub mod facts;
pub mod plan;
pub mod process;
pub mod remove;
pub mod report;
pub mod rights;
