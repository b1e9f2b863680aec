//! Passwords from where they are kept: a file, or a credential that systemd hands over.

use super::{raw::Section, report::Report, secret::Secret};
use crate::model::PASSWORD_BYTES_MAX;
use std::{
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// What a configuration meets on its machine; given as an argument so that a test can choose it.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials_dir: Option<PathBuf>,
    /// Default of the node's id.
    pub serial: Option<String>,
    /// The zone that the system is set to: default of the node's.
    pub zone: Option<String>,
    /// A password that cannot be read is a warning: taking pictures matters more than sending them. Set for the kept
    /// file only, which somebody accepted once with all its passwords.
    pub passwords_may_be_missing: bool,
    /// Everybody on the machine can read the configuration file itself.
    pub open_file: bool,
}

/// The password of a section: from its address, its file or its credential, from one of them at most.
pub(super) fn password(
    section: &Section,
    in_address: Option<Secret>,
    has_user: bool,
    around: &Surroundings,
    report: &mut Report,
) -> Option<Secret> {
    if in_address.is_some() && around.open_file {
        let advice = "everybody on this machine can read this file and the password in this address; chmod o-r it, or use password_file";
        let key = if section.has("url") { "url" } else { "source" };
        report.warning(section.place(key), format!("{} {key}: {advice}", section.title));
    }
    let file = section.parsed("password_file", "a path such as \"/etc/shutterd/hub-password\"", report, absolute);
    let credential = section.parsed("password_credential", "the name of a systemd credential", report, |name| {
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if plain { Ok(name.to_owned()) } else { Err("a credential's name has no slash, such as \"hub-password\"".to_owned()) }
    });
    let (file_key, credential_key) = ("password_file", "password_credential");
    if section.has(file_key) && section.has(credential_key) {
        section.error(credential_key, "there is a password_file as well; keep one of the two", report);
        return None;
    }
    let (key, path) = match (file, credential) {
        (Some(file), _) => (file_key, file.value),
        (None, Some(name)) => match &around.credentials_dir {
            Some(dir) => (credential_key, dir.join(name.value)),
            None => {
                let complaint = "systemd handed over no credentials; add LoadCredential= to the service, or use password_file";
                complain(section, credential_key, complaint, around, report);
                return in_address;
            }
        },
        (None, None) => return in_address,
    };
    if in_address.is_some() {
        section.error(key, "there is a password in the address as well; keep one of the two", report);
        return None;
    }
    if !has_user {
        section.error(key, "there is a password but no user; write the user into the address, before the host: USER@HOST", report);
        return None;
    }
    match read(&path) {
        Ok((secret, others_may_read)) => {
            if others_may_read && key == file_key {
                let advice = format!("{} {key}: everybody on this machine can read {}; chmod o-r it", section.title, path.display());
                report.warning(section.place(key), advice);
            }
            Some(secret)
        }
        Err(complaint) => {
            complain(section, key, &format!("{} {complaint}", path.display()), around, report);
            None
        }
    }
}

/// A path, if it does not depend on where the agent was started.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() || text.contains('\0') {
        return Err("a path begins with /, since it must not depend on where the agent is started".to_owned());
    }
    Ok(path.to_owned())
}

fn complain(section: &Section, key: &str, complaint: &str, around: &Surroundings, report: &mut Report) {
    if around.passwords_may_be_missing {
        report.warning(section.place(key), format!("{} {key}: {complaint}; running without it", section.title));
    } else {
        section.error(key, complaint, report);
    }
}

/// The password, and whether everybody may read the file. Complaints name neither file nor content.
fn read(path: &Path) -> Result<(Secret, bool), String> {
    let cannot = |cause: std::io::Error| format!("cannot be read ({cause})");
    let file = std::fs::File::open(path).map_err(cannot)?;
    let about = file.metadata().map_err(cannot)?;
    if !about.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(PASSWORD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(format!("is larger than {PASSWORD_BYTES_MAX} bytes; that is no password"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    // Editors end the last line; nobody means that newline.
    let password = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if password.is_empty() {
        return Err("is empty; write the password into it".to_owned());
    }
    if password.contains(['\n', '\r', '\0']) {
        return Err("has more than one line; write only the password into it".to_owned());
    }
    Ok((Secret::new(password.to_owned()), about.permissions().mode() & 0o004 != 0))
}
