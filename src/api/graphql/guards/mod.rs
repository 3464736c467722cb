//! Rights and limits of a request.
//!
//! On its way a request passes [`limits`] and [`merge`] in [`request`], then [`rights`] in each resolver, or [`guests`]
//! without a session; what it reads is paid from its [`allowance`].

pub(crate) mod allowance;
pub(crate) mod guests;
pub(crate) mod limits;
pub(crate) mod merge;
pub(crate) mod named;
pub(crate) mod request;
pub(crate) mod rights;
