//! The program as a person meets it: what it prints, writes and exits with.

#[path = "../support/mod.rs"]
mod support;

mod program;

mod comparison;
mod demonstration;
mod deployment;
mod documents;
mod faults;
mod gate;
mod interruption;
mod kept;
mod laboratory;
mod output;
mod terminal;
mod usage;
