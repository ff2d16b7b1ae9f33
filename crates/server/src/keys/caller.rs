// SPDX-License-Identifier: Apache-2.0
//! Who makes a call, and what of the server is theirs.

use protocol::calls::Scope;

use super::token::KeyId;

/// Who makes a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// The namespaces that are theirs.
    pub scope: Scope,
    /// The key that they showed; none where none is needed.
    pub key: Option<KeyId>,
}

impl Caller {
    /// Returns the caller of a server that asks for no keys: anybody, and everything is theirs.
    pub fn open() -> Caller {
        Caller { scope: Scope::All, key: None }
    }

    /// Says whether all of `wanted` is theirs.
    pub fn may(&self, wanted: &Scope) -> bool {
        match (&self.scope, wanted) {
            (Scope::All, Scope::All | Scope::One(_)) => true,
            (Scope::One(own), Scope::One(wanted)) => own == wanted,
            (Scope::One(_), Scope::All) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::scope;

    #[test]
    fn a_scope_holds_itself_and_all_holds_everything() {
        let may = |own: &str, wanted: &str| {
            Caller { scope: scope(own).unwrap(), key: None }.may(&scope(wanted).unwrap())
        };
        assert!(may("*", "*") && may("*", "a") && may("a", "a"));
        assert!(!may("a", "*") && !may("a", "b") && !may("a", "A") && !may("a", "aa"));
        assert!(Caller::open().may(&Scope::All));
    }
}
