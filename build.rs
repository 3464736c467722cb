//! Migrations, the database's functions and the built web application are embedded at build time: a new file means a
//! new build.

#![allow(clippy::print_stdout, reason = "that is how a build script speaks to cargo")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed=web/dist");
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&out).join("functions.rs"), functions(Path::new("migrations/functions"))?)
}

/// A slice of names and texts, for `include!`.
fn functions(folder: &Path) -> io::Result<String> {
    let folder = folder.canonicalize()?;
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    let mut code = "&[".to_owned();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let _ = write!(code, "Function {{ name: {name:?}, text: include_str!({:?}) }},", file.display().to_string());
    }
    Ok(code + "]")
}
