//! The texts of our mails. Plain text, so that nothing in them is markup.

use lettre::Address;

use super::links::SignInLink;
use crate::platform::mail::Mail;

/// A requested sign-in link.
pub(super) fn sign_in(to: Address, link: SignInLink) -> Mail {
    let text = format!(
        "Open this link to sign in to Hookledger:\n\n{}\n\n{}\n\n\
         If you didn't request this link, ignore this email. Nobody has been signed in.\n",
        link.url,
        terms(&link)
    );
    Mail { to, subject: "Sign in to Hookledger".to_owned(), text, link: Some(link.url) }
}

/// A link with which an invited person joins, with the name of the inviter if known.
pub(super) fn invitation(to: Address, by: Option<&str>, organization: &str, link: SignInLink, base_url: &str) -> Mail {
    let subject = match by {
        Some(by) => format!("{by} invited you to join {organization} on Hookledger"),
        None => format!("You've been invited to join {organization} on Hookledger"),
    };
    let text = format!(
        "{subject}. Open this link to join:\n\n{}\n\n{}\n\
         If it has expired, enter this email address at {base_url}/login to get a new one.\n\n\
         If you don't know {organization}, ignore this email.\n",
        link.url,
        terms(&link)
    );
    Mail { to, subject, text, link: Some(link.url) }
}

/// For the owner of an address that another organization invites.
pub(super) fn belongs_elsewhere(to: Address, organization: &str) -> Mail {
    let text = format!(
        "{organization} invited you to join it on Hookledger, but this email address already belongs to another organization,\n\
         and an address can belong to only one.\n\n\
         To join {organization}, ask for an invitation to a different address. We haven't told anyone that this one is in use.\n"
    );
    Mail { to, subject: format!("You've been invited to join {organization} on Hookledger"), text, link: None }
}

fn terms(link: &SignInLink) -> String {
    format!("The link works once and expires at {}.", link.expires_at.format("%H:%M UTC on %-d %B %Y"))
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
        assert!(mail.text.contains("expires at 22:13 UTC on 14 November 2023"), "{}", mail.text);
        let invited = |by| invitation(to.clone(), by, "Acme", link(), "http://localhost");
        assert!(invited(None).text.contains("invited to join Acme"));
        assert_eq!(invited(Some("bea@example.org")).subject, "bea@example.org invited you to join Acme on Hookledger");
        assert!(belongs_elsewhere(to, "Acme").link.is_none());
    }
}
