// SPDX-License-Identifier: Apache-2.0
//! Layers, honest and hostile, unpacked beside a directory that nothing may touch. Needs root, as unpacking does.

mod fuzz;
mod kept;
mod place;
mod refused;
mod removed;
mod sparse;
mod streams;
mod tar;
mod trees;
