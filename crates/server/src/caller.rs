// SPDX-License-Identifier: Apache-2.0
//! Who makes a call, and what that lets it reach.

use std::sync::Arc;

use protocol::calls::Scope;

/// Whoever sent a request, once it was let in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    scope: Scope,
    key: Option<Arc<str>>,
}

impl Caller {
    /// Returns the caller of a server that asks nobody for a key: it reaches everything.
    pub fn open() -> Caller {
        Caller { scope: Scope::All, key: None }
    }

    /// Returns the caller that showed the key of this id, made for this scope.
    pub fn with_key(id: &str, scope: Scope) -> Caller {
        Caller { scope, key: Some(id.into()) }
    }

    /// Says whether it reaches a scope: its own namespace, or all where it is not held to one.
    pub fn may(&self, scope: &Scope) -> bool {
        self.scope == Scope::All || self.scope == *scope
    }

    /// Says whether it is held to one namespace.
    pub fn is_scoped(&self) -> bool {
        self.scope != Scope::All
    }
}

#[cfg(test)]
mod tests {
    use protocol::names::NamespaceName;

    use super::*;

    #[test]
    fn a_scoped_caller_reaches_its_own_namespace_and_nothing_else() {
        let one = |name: &str| Scope::One(NamespaceName::parse(name).unwrap());
        let scoped = Caller::with_key("k", one("a"));
        assert!(scoped.may(&one("a")));
        assert!(!scoped.may(&one("b")) && !scoped.may(&one("A")) && !scoped.may(&Scope::All));
        for all in [Caller::open(), Caller::with_key("k", Scope::All)] {
            assert!(all.may(&one("a")) && all.may(&Scope::All) && !all.is_scoped());
        }
    }
}
