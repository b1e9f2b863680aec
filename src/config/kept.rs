//! The last accepted file, kept in the data directory: a node with a broken file goes on taking pictures.
//!
//! After a power cut there is either the old kept file or the new one, never a piece: temporary file, flush, rename,
//! flush of the directory. It may hold passwords (in addresses), so only its owner can read it.

use super::{
    checked,
    password::Surroundings,
    report::{ConfigErrors, Finding},
    settings::Settings,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

const NAME: &str = "config.accepted.toml";

/// Where it is kept.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Keeps `text`, which must have made settings, in the data directory (which must exist). Writes nothing when the same
/// text is kept already: a restart loop must not wear the flash.
/// # Errors
/// It could not be written or flushed; the one kept before is still there.
pub fn accept(text: &str, dir: &Path) -> io::Result<()> {
    let kept = path(dir);
    if std::fs::read(&kept).is_ok_and(|same| same == text.as_bytes()) {
        return Ok(());
    }
    let fresh = dir.join(format!("{NAME}.tmp"));
    // One left by a power cut may have another mode, which opening it would not change.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    // The umask may have taken away what the owner needs.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, &kept)?;
    File::open(dir)?.sync_all()
}

/// The settings of the kept file. Passwords that have gone missing since are warnings here.
/// # Errors
/// There is none, or this version of the program does not understand it.
pub(super) fn load(dir: &Path, around: &Surroundings) -> Result<(Settings, Vec<Finding>), ConfigErrors> {
    let path = path(dir);
    let origin = path.display().to_string();
    if !path.exists() {
        let message = "there is no earlier accepted configuration to run on instead".to_owned();
        return Err(ConfigErrors(vec![Finding { origin, line: 0, message }]));
    }
    let text = super::read_text(&path)?;
    checked::check(&text, &origin, &Surroundings { passwords_may_be_missing: true, ..around.clone() })
}
