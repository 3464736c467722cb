//! The account that PostgreSQL runs as. It refuses root, so root uses a system account for it.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

#[derive(Debug, Clone, Copy)]
pub enum Account {
    Own,
    Other { uid: u32, gid: u32 },
}

impl Account {
    pub fn choose() -> Self {
        if effective_uid() != 0 {
            return Self::Own;
        }
        let (uid, gid) = lookup("postgres").or_else(|| lookup("nobody")).unwrap_or((65534, 65534));
        Self::Other { uid, gid }
    }

    pub fn own(self, directory: &Path) -> io::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => std::os::unix::fs::chown(directory, Some(uid), Some(gid)),
        }
    }

    pub fn act(self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }
}

#[expect(unsafe_code, reason = "geteuid has no safe form in std")]
fn effective_uid() -> u32 {
    // SAFETY: a system call without arguments that cannot fail.
    unsafe { libc::geteuid() }
}

#[expect(unsafe_code, reason = "getpwnam has no safe form in std")]
fn lookup(account: &str) -> Option<(u32, u32)> {
    let name = CString::new(account).ok()?;
    // SAFETY: the name outlives the call, the answer is copied before the next call, and this program has one
    // thread.
    unsafe {
        let entry = libc::getpwnam(name.as_ptr());
        (!entry.is_null()).then(|| ((*entry).pw_uid, (*entry).pw_gid))
    }
}
