//! What a request may do: the only place that compares scopes with what is requested.

use std::sync::Arc;

use crate::principal::Principal;
use crate::scope::{Scope, Scopes};

/// The rights of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Authentication is off: everything is allowed.
    Open,
    /// There is no token: nothing that requires one is allowed. This is the default, so a missing decision allows
    /// nothing.
    #[default]
    Anonymous,
    /// A verified token.
    Bearer(Principal),
}

/// Determines what a caller may see. Callers with equal values see the same data, whoever they are and whenever their
/// tokens expire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// Authentication is off.
    Open,
    /// There is no token.
    Anonymous,
    /// There is a token.
    Bearer {
        /// The scopes of the token.
        scopes: Scopes,
        /// The customer whose own data the token shows, if it has that scope.
        own: Option<Arc<str>>,
    },
}

/// Why a request is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// There is no valid token.
    #[error(
        "this needs a token: send the header `authorization: Bearer …`, or `authorization` in the payload of connection_init"
    )]
    Unauthenticated,
    /// The token lacks the scope.
    #[error("this needs a token with the scope `{0}`")]
    Forbidden(Scope),
}

impl Access {
    /// The subject that is recorded as `changedBy`; `None` without a token.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Bearer(principal) => Some(&principal.subject),
            Self::Open | Self::Anonymous => None,
        }
    }

    /// The principal of a verified token.
    #[must_use]
    pub const fn principal(&self) -> Option<&Principal> {
        match self {
            Self::Bearer(principal) => Some(principal),
            Self::Open | Self::Anonymous => None,
        }
    }

    /// Determines what a caller with this access may see.
    #[must_use]
    pub fn sight(&self) -> Sight {
        match self {
            Self::Open => Sight::Open,
            Self::Anonymous => Sight::Anonymous,
            Self::Bearer(principal) => Sight::Bearer {
                scopes: principal.scopes,
                own: principal
                    .has(Scope::Own)
                    .then(|| Arc::clone(&principal.subject)),
            },
        }
    }

    /// Whether this access has `scope`.
    ///
    /// # Errors
    ///
    /// [`Denial`] if it does not.
    pub fn require(&self, scope: Scope) -> Result<(), Denial> {
        match self {
            Self::Open => Ok(()),
            Self::Anonymous => Err(Denial::Unauthenticated),
            Self::Bearer(principal) if principal.has(scope) => Ok(()),
            Self::Bearer(_) => Err(Denial::Forbidden(scope)),
        }
    }

    /// Whether this access has `scope`, or `customer_id` is the caller's own customer.
    ///
    /// # Errors
    ///
    /// [`Denial`] if neither is true.
    pub fn require_or_own(&self, scope: Scope, customer_id: &str) -> Result<(), Denial> {
        match self {
            Self::Bearer(principal) if principal.is_customer(customer_id) => Ok(()),
            _ => self.require(scope),
        }
    }

    /// The customer to whom a list is restricted: none ([`None`]) if the token has `scope`, otherwise the caller's own.
    ///
    /// # Errors
    ///
    /// [`Denial`] if not even that is allowed.
    pub fn narrowed_to(&self, scope: Scope) -> Result<Option<&str>, Denial> {
        match (self.require(scope), self) {
            (Ok(()), _) => Ok(None),
            (Err(_), Self::Bearer(principal)) if principal.has(Scope::Own) => {
                Ok(Some(&principal.subject))
            }
            (Err(denial), _) => Err(denial),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Scopes;

    fn bearer(subject: &str, scopes: &str) -> Access {
        Access::Bearer(Principal {
            subject: subject.into(),
            scopes: Scopes::of_claim(scopes),
            expires_at: u64::MAX,
        })
    }

    #[test]
    fn whoever_may_see_the_same_has_the_same_sight() {
        let sight = |subject, scopes| bearer(subject, scopes).sight();
        assert_eq!(sight("1", "orders:read"), sight("2", "orders:read"));
        assert_ne!(sight("1", "orders:read"), sight("1", "customers:read"));
        assert_ne!(sight("1", "self"), sight("2", "self"));
        assert_ne!(
            sight("1", "orders:read self"),
            sight("2", "orders:read self")
        );
        assert_ne!(sight("1", ""), Access::Anonymous.sight());
        let mut later = bearer("1", "self");
        if let Access::Bearer(principal) = &mut later {
            principal.expires_at = 7;
        }
        assert_eq!(later.sight(), sight("1", "self"));
    }

    #[test]
    fn without_a_token_nothing_is_allowed_unless_authentication_is_off() {
        for scope in Scope::ALL {
            assert_eq!(Access::Open.require(scope), Ok(()));
            assert_eq!(
                Access::Anonymous.require(scope),
                Err(Denial::Unauthenticated)
            );
            assert_eq!(
                Access::default().require(scope),
                Err(Denial::Unauthenticated)
            );
        }
    }

    #[test]
    fn a_token_allows_its_scopes_and_no_other() {
        for held in Scope::ALL {
            let access = bearer("7", held.as_str());
            for asked in Scope::ALL {
                let expected = if held == asked {
                    Ok(())
                } else {
                    Err(Denial::Forbidden(asked))
                };
                assert_eq!(access.require(asked), expected);
            }
        }
    }

    #[test]
    fn self_is_the_customer_of_the_subject_alone() {
        let access = bearer("7", "self");
        assert_eq!(access.require_or_own(Scope::CustomersRead, "7"), Ok(()));
        for other in ["70", "07", "", "7 "] {
            assert_eq!(
                access.require_or_own(Scope::CustomersRead, other),
                Err(Denial::Forbidden(Scope::CustomersRead))
            );
        }
        assert_eq!(access.narrowed_to(Scope::OrdersRead), Ok(Some("7")));
        assert_eq!(
            bearer("7", "orders:read").narrowed_to(Scope::OrdersRead),
            Ok(None)
        );
        assert_eq!(
            bearer("7", "customers:read").narrowed_to(Scope::OrdersRead),
            Err(Denial::Forbidden(Scope::OrdersRead))
        );
        assert_eq!(
            bearer("7", "customers:write").require_or_own(Scope::CustomersRead, "7"),
            Err(Denial::Forbidden(Scope::CustomersRead))
        );
    }
}
