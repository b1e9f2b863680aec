//! Chance that can be repeated, and how long to go on.

/// A seeded source of chance (SplitMix64, Steele and others 2014).
pub struct Dice(u64);

impl Dice {
    /// From `SHUTTER_SEED`, else from the clock; printed.
    pub fn new(what: &str) -> Self {
        let given = std::env::var("SHUTTER_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| super::agent::now_ms() as u64);
        println!("{what}: SHUTTER_SEED={seed}");
        Self(seed)
    }
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// How many power cuts a soak is to make; `None`: this is `make test`.
pub fn soak_cuts() -> Option<u32> {
    std::env::var("SHUTTER_SOAK_CUTS").ok().map(|cuts| cuts.parse().unwrap())
}
