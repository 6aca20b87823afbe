//! A client for each kind of token, made once: each has threads of its own.

use tandem_authentication::Scope;

use super::{OWN, tokens::Issuer};
use crate::support::Client;

pub struct Clients {
    pub nobody: Client,
    /// With every way in which a token can be wrong, by name.
    pub bad: Vec<(&'static str, Client)>,
    /// Of the customer [`OWN`], with one scope each.
    of: Vec<(Scope, Client)>,
    /// Of somebody who is no customer, with all scopes.
    pub all: Client,
}

impl Clients {
    pub fn new(issuer: &Issuer) -> Self {
        let bad = issuer.bad(OWN, &all_scopes());
        Self {
            nobody: Client::new(),
            bad: bad
                .into_iter()
                .map(|(kind, token)| (kind, Client::with_token(token)))
                .collect(),
            of: Scope::ALL
                .map(|scope| (scope, Client::with_token(issuer.token(OWN, scope.as_str()))))
                .into(),
            all: Client::with_token(issuer.token("nobody", &all_scopes())),
        }
    }

    pub fn of(&self, scope: Scope) -> &Client {
        let found = self.of.iter().find(|(known, _)| *known == scope);
        &found.unwrap().1
    }
}

pub fn all_scopes() -> String {
    joined(&Scope::ALL)
}

/// All but these and `self`, which may do by itself what no other scope allows.
pub fn all_scopes_but(these: &[Scope]) -> String {
    let left: Vec<Scope> = Scope::ALL
        .into_iter()
        .filter(|scope| *scope != Scope::Own && !these.contains(scope))
        .collect();
    joined(&left)
}

/// As the claim `scope` has them.
pub fn joined(scopes: &[Scope]) -> String {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    names.join(" ")
}
