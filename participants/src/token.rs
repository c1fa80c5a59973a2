//! Tokens: things that exist once (coupons, later redemption codes): free -> held -> used | free | void.
//!
//! Pure. Every change is conditional on the state that was read, here and again in the store.

use std::sync::Arc;

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Kind and number, such as `coupon:C-1`, with the lane in front unless it is live.
    pub id: Arc<str>,
    /// Who may use it.
    pub owner: Arc<str>,
    /// Where it is in its life.
    pub state: TokenState,
    /// The effect that holds or used it.
    pub holder: Option<Arc<str>>,
}

/// Where a token is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenState {
    /// Can be held.
    Free,
    /// Kept for one order.
    Held,
    /// Redeemed.
    Used,
    /// Withdrawn by an operator; for good.
    Void,
}

impl TokenState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Free, Self::Held, Self::Used, Self::Void];

    /// The spelling used in columns.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Held => "held",
            Self::Used => "used",
            Self::Void => "void",
        }
    }
}

impl Token {
    /// Free -> held.
    #[must_use]
    pub fn held_by(&self, effect: &Arc<str>) -> Option<Self> {
        (self.state == TokenState::Free).then(|| Self {
            state: TokenState::Held,
            holder: Some(effect.clone()),
            ..self.clone()
        })
    }

    /// Held by this effect -> used.
    #[must_use]
    pub fn used_by(&self, effect: &str) -> Option<Self> {
        self.is(TokenState::Held, effect).then(|| Self { state: TokenState::Used, ..self.clone() })
    }

    /// Used by this effect -> held again.
    #[must_use]
    pub fn unused_by(&self, effect: &str) -> Option<Self> {
        self.is(TokenState::Used, effect).then(|| Self { state: TokenState::Held, ..self.clone() })
    }

    /// Held by this effect -> free.
    #[must_use]
    pub fn freed_by(&self, effect: &str) -> Option<Self> {
        self.is(TokenState::Held, effect).then(|| self.freed())
    }

    /// Free, whatever it was.
    #[must_use]
    pub fn freed(&self) -> Self {
        Self { state: TokenState::Free, holder: None, ..self.clone() }
    }

    /// Free -> void.
    #[must_use]
    pub fn voided(&self) -> Option<Self> {
        (self.state == TokenState::Free).then(|| Self { state: TokenState::Void, ..self.clone() })
    }

    fn is(&self, state: TokenState, holder: &str) -> bool {
        self.state == state && self.holder.as_deref() == Some(holder)
    }
}
