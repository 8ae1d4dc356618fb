//! From files to lines.
