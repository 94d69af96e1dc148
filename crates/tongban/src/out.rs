//! Standard output that bears a reader who has seen enough.

use std::{
    fmt::Arguments,
    io::{ErrorKind, Write as _},
};

/// Prints a line. A closed pipe (`tongban verify … | head -1`) is no error: the exit code still tells the answer.
pub fn line(text: Arguments<'_>) {
    if let Err(e) = writeln!(std::io::stdout().lock(), "{text}")
        && e.kind() != ErrorKind::BrokenPipe
    {
        panic!("standard output cannot be written: {e}");
    }
}

/// Prints a line to standard output, as `println!` does; see [`line()`].
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::out::line(format_args!($($text)*)) };
}
