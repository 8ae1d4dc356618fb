//! Containers' logs, as dockerd keeps them.
//!
//! They are found and read as files. Docker's socket is not used: whoever may talk to it is root on the host, and a reader of
//! logs need not be. In a container, the host's `/var/lib/docker/containers` is mounted read-only, which is all it takes.

mod container;
mod record;
mod select;

pub use self::container::{Catalogue, Container, Driver, Mount};
pub(crate) use self::record::{Decoder, time};
pub use self::select::{SelectError, Selector};
