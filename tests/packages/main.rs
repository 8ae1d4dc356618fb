//! What `packaging/build` made, installed for real: the .deb on a Debian of its own, the .rpm by rpm's own tools.
