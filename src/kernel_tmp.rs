#[path="kernel/layout.rs"] mod layout;
#[path="kernel/disjoint.rs"] mod disjoint;
#[path="kernel/desired.rs"] mod desired;
pub use layout::*; pub use desired::*;
