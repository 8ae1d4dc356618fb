//! What a kernel can do: the real one behind a [`Connection`](crate::Connection), or the [`Fake`](crate::fake::Fake).

use std::future::Future;

use crate::batch::Batch;
use crate::chain::Chain;
use crate::commit::{CommitError, Rejection};
use crate::element::Element;
use crate::list::ListError;
use crate::rule::ListedRule;
use crate::set::Set;
use crate::table::Table;

/// A kernel with nf_tables. Implementations are described at [`Connection`](crate::Connection)'s methods.
pub trait Kernel {
    /// Makes all changes of the batch, or none.
    fn commit(&mut self, batch: &Batch) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Says what would become of each change, and changes nothing.
    fn probe(
        &mut self,
        batch: &Batch,
    ) -> impl Future<Output = Result<Vec<Result<(), Rejection>>, CommitError>> + Send;

    /// The ruleset's generation.
    fn generation(&mut self) -> impl Future<Output = Result<u32, ListError>> + Send;

    /// All tables.
    fn tables(&mut self) -> impl Future<Output = Result<Vec<Table>, ListError>> + Send;

    /// The chains of a table.
    fn chains(&mut self, table: &Table) -> impl Future<Output = Result<Vec<Chain>, ListError>> + Send;

    /// The named sets of a table.
    fn sets(&mut self, table: &Table) -> impl Future<Output = Result<Vec<Set>, ListError>> + Send;

    /// The rules of a table.
    fn rules(&mut self, table: &Table) -> impl Future<Output = Result<Vec<ListedRule>, ListError>> + Send;

    /// A set's elements.
    fn elements(&mut self, set: &Set) -> impl Future<Output = Result<Vec<Element>, ListError>> + Send;
}
