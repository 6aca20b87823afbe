//! The scopes of tokens, as the API's contract defines them.

use std::fmt;
use std::str::FromStr;

/// One permission in the claim `scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Read every customer.
    CustomersRead,
    /// Create and change customers.
    CustomersWrite,
    /// Erase customers.
    CustomersErase,
    /// Read every order.
    OrdersRead,
    /// Place, advance and cancel orders.
    OrdersWrite,
    /// The tasks of operators: rebuilds, dead letters, audit.
    Operations,
    /// The customer whose id is the token's subject, and that customer's orders.
    Own,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 7] = [
        Self::CustomersRead,
        Self::CustomersWrite,
        Self::CustomersErase,
        Self::OrdersRead,
        Self::OrdersWrite,
        Self::Operations,
        Self::Own,
    ];

    /// The name of the scope in tokens and in the schema.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CustomersRead => "customers:read",
            Self::CustomersWrite => "customers:write",
            Self::CustomersErase => "customers:erase",
            Self::OrdersRead => "orders:read",
            Self::OrdersWrite => "orders:write",
            Self::Operations => "operations",
            Self::Own => "self",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that is not the name of a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no scope `{0}`; there are customers:read, customers:write, customers:erase, orders:read, orders:write, operations and self"
)]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.chars().take(64).collect()))
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// The scopes of a claim: names separated by spaces (RFC 8693, section 4.2). Unknown names belong to other services
    /// and are ignored.
    #[must_use]
    pub fn of_claim(claim: &str) -> Self {
        claim
            .split(' ')
            .filter_map(|name| name.parse().ok())
            .collect()
    }

    /// Whether the set contains this scope.
    #[must_use]
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for scope in Scope::ALL {
            if self.contains(scope) {
                write!(formatter, "{between}{scope}")?;
                between = " ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_names_between_spaces_and_foreign_names_are_passed_over() {
        let scopes = Scopes::of_claim("openid orders:read  self customers:readx");
        for scope in Scope::ALL {
            let expected = matches!(scope, Scope::OrdersRead | Scope::Own);
            assert_eq!(scopes.contains(scope), expected, "{scope}");
        }
        assert_eq!(scopes.to_string(), "orders:read self");
    }

    #[test]
    fn every_scope_is_read_as_it_is_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse(), Ok(scope));
        }
        assert!("customers".parse::<Scope>().is_err());
        assert_eq!(Scopes::of_claim(""), Scopes::default());
    }
}
