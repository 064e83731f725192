//! The exit codes that both programs have, as `sysexits.h` has them.

/// That the command line, the configuration or a file is refused: the same would be refused again.
pub const REFUSED: u8 = 64;

/// That something is not available, or has broken off, which may be otherwise another time.
pub const UNAVAILABLE: u8 = 69;

/// That what was to be printed could not be written.
pub const NOT_WRITTEN: u8 = 74;
