// SPDX-License-Identifier: Apache-2.0
//! The plan that `msb-jail` carries out, what it reports, and what it finds out about a host. The steps themselves are in
//! the program.

pub mod facts;
pub mod plan;
pub mod report;
