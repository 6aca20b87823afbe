//! One client for each kind of token. They are shared, because each client has its own threads.

use tandem_authentication::Scope;

use super::{OWN, tokens::Issuer};
use crate::support::Client;

pub struct Clients {
    pub nobody: Client,
    /// A client for every way in which a token can be bad, by name.
    pub bad: Vec<(&'static str, Client)>,
    /// Clients of the customer [`OWN`], with one scope each.
    of: Vec<(Scope, Client)>,
    /// A client of somebody who is no customer, with all scopes.
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

/// All scopes except these and `self`, which allows by itself what no other scope does.
pub fn all_scopes_but(these: &[Scope]) -> String {
    let left: Vec<Scope> = Scope::ALL
        .into_iter()
        .filter(|scope| *scope != Scope::Own && !these.contains(scope))
        .collect();
    joined(&left)
}

/// Scopes in the form of the claim `scope`.
pub fn joined(scopes: &[Scope]) -> String {
    let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    names.join(" ")
}
