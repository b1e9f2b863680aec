//! Asks the agent on its socket as a program does: one request, one answer, nothing hidden.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An answer that takes longer than this does not come.
const ANSWER_MAX: Duration = Duration::from_secs(30);

pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name))).map(|(_, value)| value)
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[derive(Clone)]
pub struct Socket(PathBuf);

impl Socket {
    pub fn of(runtime_dir: &Path) -> Self {
        Self(shutterd::api::socket_path(runtime_dir))
    }
    /// # Errors
    /// There is nobody, or the answer broke off.
    pub fn ask(&self, method: &str, path: &str) -> io::Result<Answer> {
        let mut socket = UnixStream::connect(&self.0)?;
        socket.set_read_timeout(Some(ANSWER_MAX))?;
        write!(socket, "{method} {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
        let mut all = Vec::new();
        socket.read_to_end(&mut all)?;
        let cut_off = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(cut_off)?;
        let head = String::from_utf8_lossy(&all[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(cut_off)?;
        let answer = Answer { status, head, body: all.split_off(end + 4) };
        let whole = answer.header("content-length").is_none_or(|len| len.parse() == Ok(answer.body.len()));
        if whole { Ok(answer) } else { Err(cut_off()) }
    }
    /// # Errors
    /// As [`Self::ask`], and an answer that is none of this kind.
    pub fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> io::Result<T> {
        serde_json::from_slice(&self.ask("GET", path)?.body).map_err(io::Error::other)
    }
}
