//! What our mails say. Plain text, so that nothing in it is markup.

use lettre::Address;

use super::links::SignInLink;
use crate::platform::mail::Mail;

/// A link that somebody asked for.
pub(super) fn sign_in(to: Address, link: SignInLink) -> Mail {
    let text = format!(
        "Open this link to sign in to Hookledger:\n\n{}\n\n{}\n\n\
         If you did not ask for it, ignore this mail: nobody was signed in.\n",
        link.url,
        terms(&link)
    );
    Mail { to, subject: "Sign in to Hookledger".to_owned(), text, link: Some(link.url) }
}

/// A link with which somebody who was invited joins.
pub(super) fn invitation(to: Address, organization: &str, link: SignInLink, base_url: &str) -> Mail {
    let text = format!(
        "You are invited to {organization} on Hookledger. Open this link to join:\n\n{}\n\n{}\n\
         Later, ask for a new one with this address at {base_url}/login\n\n\
         If you do not know {organization}, ignore this mail.\n",
        link.url,
        terms(&link)
    );
    Mail { to, subject: format!("You are invited to {organization} on Hookledger"), text, link: Some(link.url) }
}

/// What the owner of an address is told when another organization invites it.
pub(super) fn belongs_elsewhere(to: Address, organization: &str) -> Mail {
    let text = format!(
        "{organization} invited you to Hookledger. This address already belongs to a user of another organization,\n\
         and one address belongs to one organization, so you cannot join with it.\n\n\
         To join {organization}, ask to be invited with another address. Nobody was told that this one is in use.\n"
    );
    Mail { to, subject: format!("You are invited to {organization} on Hookledger"), text, link: None }
}

fn terms(link: &SignInLink) -> String {
    format!("It works once, until {}.", link.expires_at.format("%H:%M UTC on %-d %B %Y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_its_link_and_says_until_when() {
        let link = || SignInLink {
            url: "http://localhost/auth/verify?token=abc".to_owned(),
            expires_at: chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
        };
        let to: Address = "ada@example.org".parse().unwrap();
        let mail = sign_in(to.clone(), link());
        assert!(mail.text.contains("\n\nhttp://localhost/auth/verify?token=abc\n\n"), "{}", mail.text);
        assert!(mail.text.contains("until 22:13 UTC on 14 November 2023"), "{}", mail.text);
        assert!(invitation(to.clone(), "Acme", link(), "http://localhost").text.contains("invited to Acme"));
        assert!(belongs_elsewhere(to, "Acme").link.is_none());
    }
}
