// SPDX-License-Identifier: Apache-2.0
//! The plan that `msb-jail` carries out, and what it reports. The steps themselves are in the program.

pub mod plan;
pub mod report;
