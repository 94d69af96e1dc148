//! The demo's departments and the shipped matters are part of the program: a new file among them is a new program.

fn main() {
    println!("cargo:rerun-if-changed=../../matters");
    println!("cargo:rerun-if-changed=../../demo");
}
