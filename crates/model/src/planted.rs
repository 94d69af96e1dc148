//! Planted bugs and lies: each switches one rule off, or lets one department cheat, to show that the simulation catches
//! the one and bears the other. Without the feature `sim` there are none.

#[cfg(feature = "sim")]
thread_local!(static PLANTED: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) });

/// Plants these on this thread, in place of any before.
#[cfg(feature = "sim")]
pub fn plant(names: &[&str]) {
    PLANTED.with(|planted| *planted.borrow_mut() = names.iter().map(|n| (*n).to_owned()).collect());
}

/// Whether a bug or lie is planted.
#[cfg(feature = "sim")]
pub fn planted(name: &str) -> bool {
    PLANTED.with(|planted| planted.borrow().iter().any(|p| p == name))
}

/// Whether a bug or lie is planted: never, in the shipped program.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub fn planted(_: &str) -> bool {
    false
}
