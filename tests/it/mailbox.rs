//! Mails as files in `HOOKLEDGER_MAIL_DIR`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::patience::PATIENCE;

/// A directory of mails.
pub struct Mailbox(tempfile::TempDir);

impl Mailbox {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Every mail so far, oldest first, as its text with headers.
    pub fn all(&self) -> Vec<String> {
        let mut files: Vec<_> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
            .collect();
        files.sort();
        files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }

    /// Waits for that many mails to an address, and returns them.
    pub async fn to(&self, address: &str, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let to = format!("To: {address}");
            let mails: Vec<String> =
                self.all().into_iter().filter(|mail| mail.lines().any(|line| line.trim() == to)).collect();
            if mails.len() >= count {
                assert_eq!(mails.len(), count, "{mails:#?}");
                return mails;
            }
            assert!(Instant::now() < deadline, "no {count} mails to {address}: {:#?}", self.all());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The link in the last of that many mails to an address.
    pub async fn link(&self, address: &str, count: usize) -> String {
        link_in(self.to(address, count).await.last().unwrap())
    }
}

/// The link in a mail.
pub fn link_in(mail: &str) -> String {
    let line = mail.lines().find(|line| line.contains("/auth/verify?token=")).unwrap_or_else(|| panic!("{mail}"));
    line.trim().to_owned()
}
