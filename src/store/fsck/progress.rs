//! How far a long look has got.

/// Called often; whoever shows it chooses how often.
pub struct Progress<'a> {
    pub show: &'a mut dyn FnMut(&'static str, u64, u64),
}

impl Progress<'_> {
    /// So many are done of so many.
    pub fn at(&mut self, what: &'static str, done: u64, of: u64) {
        (self.show)(what, done, of);
    }
}
