//! `stockade test`: what a filter makes of a log.
