// SPDX-License-Identifier: Apache-2.0
//! Tests of the API's words, as a client would send them.

mod calls;
mod methods;
