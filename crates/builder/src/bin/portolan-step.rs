//! The step process as a program of its own, for tests of this crate. The server starts
//! itself with `build-run` instead.

fn main() {
    std::process::exit(portolan_builder::exec::step_main());
}
