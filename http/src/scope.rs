//! What a token may allow. Each scope is also a type, so that a handler's signature says what it needs.

/// A scope that a handler names in its signature.
pub trait Needs: Send + 'static {
    /// Any one of these is enough.
    const ANY: &'static [Scope];
}

macro_rules! scopes {
    ($($name:ident $label:literal $doc:literal;)*) => {
        /// One permission.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Scope {
            $(#[doc = $doc] $name,)*
        }

        impl Scope {
            /// Every scope.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The spelling used in tokens and in the API description.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }

            /// What it allows, for people.
            #[must_use]
            pub fn describe(self) -> &'static str {
                match self { $(Self::$name => $doc),* }
            }
        }

        $(
            #[doc = $doc]
            #[derive(Debug)]
            pub struct $name;
            impl Needs for $name {
                const ANY: &'static [Scope] = &[Scope::$name];
            }
        )*
    };
}

scopes! {
    OrdersOwn        "orders:own"        "See and cancel orders whose owner is the token's subject; start those that their definition lets its owner start.";
    OrdersRead       "orders:read"       "See everybody's orders.";
    OrdersWrite      "orders:write"      "Start and cancel everybody's orders and sagas, except those that only another saga starts.";
    SagasRead        "sagas:read"        "See sagas, their timelines and the stream of their changes.";
    SagasOperate     "sagas:operate"     "Retry, compensate and wake sagas; start those that only another saga starts; replay dead letters; run jobs.";
    SagasForce       "sagas:force"       "Force a saga to a named end.";
    DefinitionsRead  "definitions:read"  "See definitions.";
    DefinitionsWrite "definitions:write" "Load, activate and roll back definitions.";
    LedgerRead       "ledger:read"       "See the books and discrepancies.";
    LedgerWrite      "ledger:write"      "Open and adjust stock, points and coupons.";
    EventsWrite      "events:write"      "Send events to sagas, and events that start sagas.";
    AuditRead        "audit:read"        "See dead letters, shards, jobs and metrics.";
    TokensWrite      "tokens:write"      "Create, list and revoke tokens.";
    RoleRisk         "role:risk"         "Cancel with reasons of the role risk.";
    RoleWarehouse    "role:warehouse"    "Cancel with reasons of the role warehouse.";
    RoleOperator     "role:operator"     "Cancel with reasons of the role operator.";
}

macro_rules! either {
    ($($name:ident = $($scope:ident)|+, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            #[derive(Debug)]
            pub struct $name;
            impl Needs for $name {
                const ANY: &'static [Scope] = &[$(Scope::$scope),+];
            }
        )*
    };
}

either! {
    StartOrders = OrdersWrite | OrdersOwn, "Starts orders; with `orders:own` only one's own, where the definition says so.";
    StartAny = OrdersWrite | OrdersOwn | SagasOperate, "Starts sagas, as their definitions' `started_by` allows.";
    SeeAny = SagasRead | OrdersRead | OrdersOwn, "Sees sagas; with `orders:own` only one's own.";
    SeeOthers = SagasRead | OrdersRead, "Sees everybody's sagas.";
    CancelAny = OrdersWrite | OrdersOwn | RoleRisk | RoleWarehouse | RoleOperator, "Cancels with reasons of one's role.";
}

impl Scope {
    /// Finds a scope by its label.
    #[must_use]
    pub fn find(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scope| scope.label() == label)
    }

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Several scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u32);

impl Scopes {
    /// Every scope.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// True when `scope` is among them.
    #[must_use]
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// True when all of `other` are among them.
    #[must_use]
    pub fn include(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The scopes, in order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.has(*scope))
    }

    /// Reads labels separated by spaces, as they are stored; an unknown one is the error.
    pub fn parse(labels: &str) -> Result<Self, String> {
        labels.split_whitespace().map(|label| Scope::find(label).ok_or_else(|| label.to_owned())).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl std::fmt::Display for Scopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, scope) in self.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { " " }, scope.label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_survive_their_spelling() {
        assert_eq!(Scopes::parse(&Scopes::all().to_string()), Ok(Scopes::all()));
        let two = Scopes::parse("sagas:read orders:own").unwrap();
        assert_eq!(two.to_string(), "orders:own sagas:read");
        assert!(Scopes::all().include(two) && !two.include(Scopes::all()));
        assert_eq!(Scopes::parse("sagas:read root"), Err("root".into()));
    }
}
