//! The pages, and the parts that they are made of.

pub(super) mod experiments;
pub(super) mod past;
pub(super) mod run;
pub(super) mod shop;
pub(super) mod stories;

pub(super) mod comparison;
pub(super) mod controls;
mod fault_menu;
mod field;
mod live;
pub(super) mod part;
mod shown;
