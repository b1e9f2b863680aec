//! Configuration in three steps: raw (names, types and lines) → checked (every value judged, all errors at once) →
//! [`settings::Settings`] (cannot be wrong).
//!
//! A file that cannot be used does not stop a node that ran before: the last accepted one, kept in the data directory,
//! takes its place, and whoever calls gets both the settings and what is wrong ([`Loaded`]).

mod address;
mod board;
mod checked;
pub mod command;
pub mod kept;
mod keys;
pub mod moments;
mod password;
mod raw;
mod report;
mod schedule;
mod schedule_words;
pub mod secret;
pub mod settings;
pub mod text;
mod thin;
pub mod units;
mod video;
pub mod windows;
pub mod zones;

pub use board::board_serial;
pub use checked::{DATA_DIR_DEFAULT, RUNTIME_DIR_DEFAULT};
pub use report::{ConfigErrors, Finding};

use crate::model::CONFIG_BYTES_MAX;
use password::Surroundings;
use settings::Settings;
use std::{
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Settings to run with, and where they came from.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub warnings: Vec<Finding>,
    pub origin: Origin,
}

#[derive(Debug)]
pub enum Origin {
    /// The file asked for, with its text for [`kept::accept`].
    Present { text: String },
    /// The last accepted one, because the file asked for has these errors.
    Kept { errors: ConfigErrors },
}

/// Settings and warnings of a file.
/// # Errors
/// All that is wrong with it.
pub fn load(path: &Path) -> Result<(Settings, Vec<Finding>), ConfigErrors> {
    let text = read_text(path)?;
    checked::check(&text, &path.display().to_string(), &surroundings(Some(path)))
}

/// Settings and warnings of a text; `origin` is what its findings call it. Reads the password files that it names.
/// # Errors
/// All that is wrong with it.
pub fn parse(text: &str, origin: &str) -> Result<(Settings, Vec<Finding>), ConfigErrors> {
    checked::check(text, origin, &surroundings(None))
}

/// Settings of a file or, when it has errors, of the one accepted last. `data_dir` replaces `[store] dir`, and is where
/// the kept one is looked for; without it that is the broken file's own `[store] dir` if it can be read, else the
/// default.
/// # Errors
/// What is wrong with the file, when none is kept (or what is wrong with that one too): exit code 78.
pub fn load_or_kept(path: &Path, data_dir: Option<&Path>) -> Result<Loaded, ConfigErrors> {
    let text = read_text(path);
    let fresh = text.clone().and_then(|text| {
        let (settings, warnings) = checked::check(&text, &path.display().to_string(), &surroundings(Some(path)))?;
        Ok(Loaded { settings, warnings, origin: Origin::Present { text } })
    });
    let mut loaded = fresh.or_else(|mut errors| {
        let dir = data_dir.map(Path::to_owned).unwrap_or_else(|| match &text {
            Ok(text) => checked::data_dir(text),
            Err(_) => PathBuf::from(DATA_DIR_DEFAULT),
        });
        match kept::load(&dir, &surroundings(None)) {
            Ok((settings, warnings)) => Ok(Loaded { settings, warnings, origin: Origin::Kept { errors } }),
            Err(kept_errors) => {
                errors.0.extend(kept_errors.0);
                Err(errors)
            }
        }
    })?;
    if let Some(dir) = data_dir {
        loaded.settings.store.dir = dir.to_owned();
    }
    Ok(loaded)
}

fn surroundings(file: Option<&Path>) -> Surroundings {
    let others_may_read = |path| std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o004 != 0);
    let credentials_dir = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Surroundings {
        credentials_dir,
        serial: board_serial(),
        zone: zones::of_system(),
        passwords_may_be_missing: false,
        open_file: file.is_some_and(others_may_read),
    }
}

fn read_text(path: &Path) -> Result<String, ConfigErrors> {
    let refused = |message: String| ConfigErrors(vec![Finding { origin: path.display().to_string(), line: 0, message }]);
    let cannot = |cause: std::io::Error| refused(format!("cannot be read ({cause})"));
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(refused(format!("is larger than {}; that is no configuration", units::SizeInWords(CONFIG_BYTES_MAX))));
    }
    String::from_utf8(bytes).map_err(|wrong| {
        let good = &wrong.as_bytes()[..wrong.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|b| **b == b'\n').count();
        let message = "this line is not UTF-8 text; save the file as UTF-8".to_owned();
        ConfigErrors(vec![Finding { origin: path.display().to_string(), line, message }])
    })
}

#[cfg(test)]
mod tests;
