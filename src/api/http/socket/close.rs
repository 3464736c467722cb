//! The codes that a socket is closed with.

/// Why the server closes a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    GoingAway,
    Silent,
    TooLarge,
    BadMessage,
    Unauthorized,
    SessionEnded,
    Forbidden,
    Subprotocol,
    InitTimeout,
    DuplicateId,
    TooManyInits,
    TooManySockets,
    Unavailable,
    /// Another unauthenticated socket took its place.
    GaveWay,
}

impl Close {
    /// The code of the protocol, and the reason in words.
    pub(super) const fn frame(self) -> (u16, &'static str) {
        match self {
            Self::GoingAway => (1001, "The server is stopping"),
            Self::Silent => (1001, "Nothing was heard for too long"),
            Self::TooLarge => (1009, "The message is too large"),
            Self::Unavailable | Self::GaveWay => (1013, "Try again later"),
            Self::BadMessage => (4400, "Invalid message"),
            Self::Unauthorized => (4401, "Unauthorized"),
            Self::SessionEnded => (4401, "The session has ended"),
            Self::Forbidden => (4403, "Forbidden"),
            Self::Subprotocol => (4406, "Subprotocol not acceptable"),
            Self::InitTimeout => (4408, "Connection initialisation timeout"),
            Self::DuplicateId => (4409, "Subscriber already exists"),
            Self::TooManyInits => (4429, "Too many initialisation requests"),
            Self::TooManySockets => (4429, "Too many connections of one user"),
        }
    }

    /// How an error of the transport is answered; not at all where there is nobody to tell.
    pub(super) fn after(error: &warp::Error) -> Option<Self> {
        // warp tells its errors apart in their text only.
        error.to_string().contains("too long").then_some(Self::TooLarge)
    }
}
