//! Sign-in sessions of the pages.
