//! A failure of a command, in words.

use crate::error::Exit;

pub struct Trouble {
    pub exit: Exit,
    pub code: String,
    pub message: String,
}

impl Trouble {
    pub fn new(exit: Exit, code: &str, message: impl ToString) -> Self {
        Self { exit, code: code.into(), message: message.to_string() }
    }
    pub fn failed(message: impl ToString) -> Self {
        Self::new(Exit::Failed, "failed", message)
    }
}
