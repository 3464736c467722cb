//! Identity: users, sign-in links and session tokens. There are no passwords.

mod accounts;
mod links;
mod tokens;

pub use accounts::{Accounts, IdentityError};
pub use links::{Links, SignInLink, SignedIn};
pub use tokens::{Claims, TokenError, Tokens};
