//! The file of checkpoints: outside the database, so that nobody who changes the database can change earlier
//! statements. It only grows. Each line is `{"note":"…"}`: a checkpoint as it was signed, and again with the
//! signatures of a witness if there is one.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// Longest note, and longest line that is read.
const LONGEST_LINE: u64 = 1 << 20;

/// How long a disk may take.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
struct Line<N> {
    note: N,
}

/// Appends notes. Clones append to the same file.
#[derive(Clone, Debug)]
pub struct CheckpointFile(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    /// Opened on first use, and again after an error.
    file: Arc<Mutex<Option<File>>>,
}

impl CheckpointFile {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(Arc::new(Opened { path, file: Arc::default() }))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Appends notes, and returns once they are on disk. If the disk hangs, at most one thread hangs with it.
    pub async fn append(&self, notes: Vec<String>) -> io::Result<()> {
        let appending = async {
            let mut file = Arc::clone(&self.0.file).lock_owned().await;
            let path = self.0.path.clone();
            let appended = tokio::task::spawn_blocking(move || append(&path, &mut file, &notes)).await;
            appended.map_err(io::Error::other)?
        };
        let too_late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer in time"));
        tokio::time::timeout(LIMIT, appending).await.unwrap_or_else(too_late)
    }
}

fn append(path: &Path, file: &mut Option<File>, notes: &[String]) -> io::Result<()> {
    let mut lines = Vec::new();
    for note in notes {
        serde_json::to_writer(&mut lines, &Line { note })?;
        lines.push(b'\n');
    }
    // Taken out, so that it is opened and checked again after an error.
    let mut opened = match file.take() {
        Some(opened) => opened,
        None => open(path)?,
    };
    opened.write_all(&lines)?;
    opened.sync_data()?;
    *file = Some(opened);
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = File::options().create(true).append(true).read(true).mode(0o600).open(path)?;
    if file.metadata()?.len() == 0 {
        File::open(directory)?.sync_all()?;
    } else {
        // A crash may have cut off the last line. It stays, and the next note begins on a new line.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

/// The notes of the file, in order, with their line numbers from 1. `None` for a line without a note, such as
/// one that a crash cut off.
pub fn read(path: &Path) -> io::Result<impl Iterator<Item = io::Result<(usize, Option<String>)>>> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut number = 0;
    Ok(std::iter::from_fn(move || {
        let mut line = Vec::new();
        match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => {
                number += 1;
                let note = serde_json::from_slice::<Line<String>>(&line).ok().map(|line| line.note);
                Some(Ok((number, note)))
            }
            Err(error) => Some(Err(error)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn notes(path: &Path) -> Vec<Option<String>> {
        read(path).unwrap().map(|line| line.unwrap().1).collect()
    }

    #[tokio::test]
    async fn notes_are_appended_and_read_in_order_also_behind_a_cut_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("checkpoints.jsonl");
        let file = CheckpointFile::new(path.clone());
        file.append(vec!["a\n\n— b\n".to_owned(), "c\n".to_owned()]).await.unwrap();
        assert_eq!(notes(&path), [Some("a\n\n— b\n".to_owned()), Some("c\n".to_owned())]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let before = fs::read(&path).unwrap();
        let mut cut = File::options().append(true).open(&path).unwrap();
        cut.write_all(b"{\"note\":\"d").unwrap();
        // As after a restart.
        CheckpointFile::new(path.clone()).append(vec!["e\n".to_owned()]).await.unwrap();
        assert_eq!(notes(&path)[2..], [None, Some("e\n".to_owned())]);
        assert!(fs::read(&path).unwrap().starts_with(&before));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoints.jsonl");
        fs::create_dir(&path).unwrap();
        let file = CheckpointFile::new(path.clone());
        assert!(file.append(vec!["a\n".to_owned()]).await.is_err());
        fs::remove_dir(&path).unwrap();
        file.append(vec!["b\n".to_owned()]).await.unwrap();
        assert_eq!(notes(&path), [Some("b\n".to_owned())]);
    }
}
