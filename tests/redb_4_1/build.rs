//! Tells the harness that it must fail here.
fn main() {
    println!("cargo::rustc-cfg=redb_4_1");
}
