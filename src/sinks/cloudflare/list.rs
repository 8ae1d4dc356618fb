//! An IP list of an account, changed by asynchronous bulk operations, one at a time.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Failure, id};
use super::custom::CustomRule;
use super::tag::Tag;
use super::target::{Targets, parse, value};
use crate::sinks::mirror::Pass;
use crate::sinks::trouble::Trouble;

/// Items of a page.
const PAGE: &str = "500";
/// Items of an operation.
const BATCH: usize = 1000;
/// So many items are fetched one by one before they are removed; for more the whole list is.
const ONE_BY_ONE: usize = 20;
/// What was seen so lately is as it was.
const FRESH: Duration = Duration::from_secs(60);
/// An operation is asked about after so long, then after twice as long each time.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(16);
/// An operation of somebody else is waited for so long.
const THEIRS: Duration = Duration::from_secs(10);
/// An operation that is not over by then never is.
const ENDLESS: Duration = Duration::from_secs(3600);
/// A pass takes so long at most.
const TIME: Duration = Duration::from_secs(2);

/// The list.
#[derive(Debug)]
pub(super) struct List {
    pub(super) api: Api,
    tag: Tag,
    account: String,
    name: String,
    /// The rule that makes use of it, if it is to be ours.
    rule: Option<CustomRule>,
    id: Option<String>,
    /// All items; `None` until they were looked through.
    known: Option<HashMap<IpNet, Item>>,
    listing: Option<Listing>,
    listed_at: Option<Instant>,
    pending: Option<Pending>,
    /// What the API does not take, and why; tried again with everything.
    pub(super) rejected: HashMap<IpNet, String>,
    /// An operation has so many items: fewer after one was refused, to find what it was refused for.
    batch: usize,
    /// Whether removing comes next where there is both to do.
    removes: bool,
}

/// An item of the list.
#[derive(Clone, Debug)]
struct Item {
    /// Not known of those just added.
    id: Option<String>,
    is_own: bool,
}

/// Looking through the list, page by page.
#[derive(Debug, Default)]
struct Listing {
    cursor: Option<String>,
    found: HashMap<IpNet, Item>,
}

/// An operation under way.
#[derive(Debug)]
struct Pending {
    id: String,
    nets: Vec<IpNet>,
    is_add: bool,
    since: Instant,
    wait: Duration,
}

impl List {
    pub(super) fn new(api: Api, tag: Tag, account: &str, name: &str, rule: Option<CustomRule>) -> Self {
        Self {
            api,
            tag,
            account: account.to_owned(),
            name: name.to_owned(),
            rule,
            id: None,
            known: None,
            listing: None,
            listed_at: None,
            pending: None,
            rejected: HashMap::new(),
            batch: BATCH,
            removes: false,
        }
    }

    /// Items of ours that are there.
    pub(super) fn shown(&self) -> usize {
        self.known.as_ref().map_or(0, |known| known.values().filter(|item| item.is_own).count())
    }

    /// Items of others that are to be there anyway.
    pub(super) fn strange(&self, targets: &Targets) -> usize {
        let theirs =
            |net| self.known.as_ref().and_then(|known| known.get(net)).is_some_and(|item| !item.is_own);
        targets.all.keys().filter(|net| theirs(net)).count()
    }

    /// What is odd about the rule that makes use of the list.
    pub(super) fn oddity(&self) -> Option<&str> {
        self.rule.as_ref()?.oddity.as_deref()
    }

    /// Works a while towards `targets`.
    pub(super) async fn pass(&mut self, targets: &Targets, whole: bool) -> Result<Pass, Trouble> {
        if whole {
            self.id = None;
            self.listing = Some(Listing::default());
        }
        let began = Instant::now();
        let mut changed = 0;
        loop {
            let left = self.left(targets);
            if left == 0 {
                return Ok(Pass { changed, left, wait: None });
            }
            if began.elapsed() >= TIME || !self.api.may_ask() {
                return Ok(Pass { changed, left, wait: Some(self.api.budget.wait(1, Instant::now())) });
            }
            let wait = self.step(targets, &mut changed).await?;
            if let Some(wait) = wait {
                let wait = wait.max(self.api.budget.wait(1, Instant::now()));
                return Ok(Pass { changed, left: self.left(targets), wait: Some(wait) });
            }
        }
    }

    /// What is still to be done.
    fn left(&self, targets: &Targets) -> usize {
        let unready = usize::from(self.id.is_none() || self.listing.is_some());
        let pending = self.pending.as_ref().map_or(0, |pending| pending.nets.len());
        let Some(known) = &self.known else { return unready + targets.all.len() };
        let adds = targets.all.keys().filter(|net| self.is_missing(known, net)).count();
        let removes =
            known.iter().filter(|(net, item)| item.is_own && !targets.all.contains_key(*net)).count();
        (unready + adds + removes).max(pending)
    }

    fn is_missing(&self, known: &HashMap<IpNet, Item>, net: &IpNet) -> bool {
        !known.contains_key(net) && !self.rejected.contains_key(net)
    }

    /// One request or a few. How long to wait then; `None` for not at all.
    async fn step(&mut self, targets: &Targets, changed: &mut usize) -> Result<Option<Duration>, Trouble> {
        if self.pending.is_some() {
            return self.poll(changed).await;
        }
        let Some(list) = self.id.clone() else {
            self.find().await?;
            return Ok(None);
        };
        if self.listing.is_some() {
            self.list_a_page(&list).await?;
            return Ok(None);
        }
        let Some(known) = &self.known else {
            self.listing = Some(Listing::default());
            return Ok(None);
        };
        let mut removes: Vec<IpNet> = known
            .iter()
            .filter(|(net, i)| i.is_own && !targets.all.contains_key(*net))
            .map(|(n, _)| *n)
            .collect();
        let mut adds: Vec<_> = targets.all.iter().filter(|(net, _)| self.is_missing(known, net)).collect();
        adds.sort_unstable_by_key(|(net, target)| (Reverse(target.rank), **net));
        adds.truncate(self.batch);
        removes.sort_unstable();
        removes.truncate(BATCH);
        let remove = !removes.is_empty() && (self.removes || adds.is_empty());
        if remove {
            self.remove(&list, removes).await
        } else {
            let items: Vec<Value> = adds
                .iter()
                .map(|(net, t)| json!({ "ip": value(**net), "comment": self.tag.note(t.end, &t.jails) }))
                .collect();
            let nets = adds.iter().map(|(net, _)| **net).collect();
            self.add(&list, nets, &items.into()).await
        }
    }

    /// Finds the list, or makes it, and the rule that makes use of it.
    async fn find(&mut self) -> Result<(), Trouble> {
        let path = format!("accounts/{}/rules/lists", self.account);
        let answer = self
            .api
            .ask(Method::GET, &path, &[], None)
            .await
            .map_err(|e| e.trouble("failed to look through the lists"))?;
        let found = answer["result"].as_array().and_then(|all| all.iter().find(|l| l["name"] == *self.name));
        let list = match found {
            Some(list) if list["kind"] == "ip" => id(&list["id"])?,
            Some(_) => {
                return Err(Trouble::refused(format!(
                    "the account has a list {} that is not of addresses; name another one with `list`",
                    self.name
                )));
            }
            None => {
                let body = json!({
                    "name": self.name, "kind": "ip", "description": "addresses that stockade has banned",
                });
                match self.api.ask(Method::POST, &path, &[], Some(&body)).await {
                    Ok(answer) => id(&answer["result"]["id"])?,
                    Err(Failure::Said(refusal)) => {
                        return Err(Trouble::refused(format!(
                            "Cloudflare makes no list {}: {}; the Free plan has one list in all: name it with `list`, if it \
                             is of addresses",
                            self.name,
                            refusal.told()
                        )));
                    }
                    Err(e) => return Err(e.trouble("failed to make the list")),
                }
            }
        };
        if let Some(rule) = &mut self.rule {
            rule.ensure(&mut self.api).await?;
        }
        self.id = Some(list);
        Ok(())
    }

    async fn list_a_page(&mut self, list: &str) -> Result<(), Trouble> {
        let Some(cursor) = self.listing.as_ref().map(|listing| listing.cursor.clone()) else { return Ok(()) };
        let mut query = vec![("per_page", PAGE)];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let answer = self
            .api
            .ask(Method::GET, &self.path(list), &query, None)
            .await
            .map_err(|e| e.trouble("failed to look through the list"))?;
        let items = answer["result"].as_array().map_or(&[][..], Vec::as_slice);
        let next = answer["result_info"]["cursors"]["after"].as_str().filter(|next| !next.is_empty());
        let found: Result<Vec<(IpNet, Item)>, Trouble> = items
            .iter()
            .filter_map(|item| {
                let net = parse(item["ip"].as_str()?)?;
                let is_own = self.is_own(item);
                Some(id(&item["id"]).map(|id| (net, Item { id: Some(id), is_own })))
            })
            .collect();
        let Some(listing) = &mut self.listing else { return Ok(()) };
        listing.found.extend(found?);
        match next {
            Some(next) if Some(next) != cursor.as_deref() => listing.cursor = Some(next.to_owned()),
            _ => {
                self.known = self.listing.take().map(|listing| listing.found);
                self.listed_at = Some(Instant::now());
                self.rejected.clear();
            }
        }
        Ok(())
    }

    fn is_own(&self, item: &Value) -> bool {
        item["comment"].as_str().is_some_and(|comment| self.tag.read(comment).is_some())
    }

    fn path(&self, list: &str) -> String {
        format!("accounts/{}/rules/lists/{list}/items", self.account)
    }

    async fn add(
        &mut self,
        list: &str,
        nets: Vec<IpNet>,
        items: &Value,
    ) -> Result<Option<Duration>, Trouble> {
        self.removes = true;
        match self.api.ask(Method::POST, &self.path(list), &[], Some(items)).await {
            Ok(answer) => self.begin(&answer, nets, true),
            Err(Failure::Said(refusal)) if refusal.status == 429 => Ok(Some(THEIRS)),
            // One of them is at fault, or all are.
            Err(Failure::Said(refusal)) if refusal.status == 400 && nets.len() > 1 => {
                tracing::debug!("Cloudflare takes no {} items at once: {}", nets.len(), refusal.told());
                self.batch = nets.len() / 2;
                Ok(None)
            }
            Err(Failure::Said(refusal)) if refusal.status == 400 => {
                let told = refusal.told();
                for net in nets {
                    tracing::warn!("Cloudflare takes no item {}: {told}", value(net));
                    self.rejected.insert(net, told.clone());
                }
                if self.rejected.len() >= ONE_BY_ONE {
                    return Err(Trouble::later(format!("Cloudflare takes no items: {told}")));
                }
                Ok(None)
            }
            Err(e) => Err(e.trouble("failed to add to the list")),
        }
    }

    /// Removes items of ours: by their ids, and only what was seen just now with our tag.
    async fn remove(&mut self, list: &str, mut nets: Vec<IpNet>) -> Result<Option<Duration>, Trouble> {
        self.removes = false;
        let Some(known) = &mut self.known else { return Ok(None) };
        let ids: Option<Vec<String>> = nets.iter().map(|net| known.get(net)?.id.clone()).collect();
        let is_fresh = self.listed_at.is_some_and(|at| at.elapsed() < FRESH);
        let Some(mut ids) = ids.filter(|ids| is_fresh || ids.len() <= ONE_BY_ONE) else {
            self.listing = Some(Listing::default());
            // The same again, when it was looked through.
            self.removes = true;
            return Ok(None);
        };
        if !is_fresh {
            let mut verified = Vec::new();
            for (net, id) in nets.iter().zip(ids) {
                let path = format!("{}/{id}", self.path(list));
                let is_ours = match self.api.ask(Method::GET, &path, &[], None).await {
                    Ok(answer) => {
                        let item = &answer["result"];
                        item["ip"].as_str().and_then(parse) == Some(*net) && self.is_own(item)
                    }
                    Err(Failure::Said(refusal)) if refusal.status == 404 => false,
                    Err(e) => return Err(e.trouble("failed to fetch an item of the list")),
                };
                if is_ours {
                    verified.push((*net, id));
                } else if let Some(known) = &mut self.known {
                    known.remove(net);
                }
            }
            (nets, ids) = verified.into_iter().unzip();
            if nets.is_empty() {
                return Ok(None);
            }
        }
        let items: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
        match self.api.ask(Method::DELETE, &self.path(list), &[], Some(&json!({ "items": items }))).await {
            Ok(answer) => self.begin(&answer, nets, false),
            Err(Failure::Said(refusal)) if refusal.status == 429 => Ok(Some(THEIRS)),
            Err(e) => Err(e.trouble("failed to remove from the list")),
        }
    }

    fn begin(&mut self, answer: &Value, nets: Vec<IpNet>, is_add: bool) -> Result<Option<Duration>, Trouble> {
        let id = id(&answer["result"]["operation_id"])?;
        self.pending = Some(Pending { id, nets, is_add, since: Instant::now(), wait: FIRST });
        // Few items are there at once, as a rule.
        Ok(None)
    }

    /// Asks what became of the operation.
    async fn poll(&mut self, changed: &mut usize) -> Result<Option<Duration>, Trouble> {
        let Some(pending) = &mut self.pending else { return Ok(None) };
        let path = format!("accounts/{}/rules/lists/bulk_operations/{}", self.account, pending.id);
        let answer = match self.api.ask(Method::GET, &path, &[], None).await {
            Ok(answer) => answer,
            Err(Failure::Said(refusal)) => {
                // Forgotten there; what it did is seen in the list.
                self.pending = None;
                return Err(Trouble::later(format!("an operation is not known: {}", refusal.told())));
            }
            Err(e) => return Err(e.trouble("failed to ask about an operation")),
        };
        let result = &answer["result"];
        match result["status"].as_str() {
            Some("completed") => {
                *changed += pending.nets.len();
                let done = self.pending.take();
                self.done(done);
                Ok(None)
            }
            Some("failed") => {
                let error = result["error"].as_str().unwrap_or("it does not say why").to_owned();
                self.pending = None;
                Err(Trouble::later(format!("Cloudflare could not change the list {}: {error}", self.name)))
            }
            Some("pending" | "running") if pending.since.elapsed() < ENDLESS => {
                let wait = pending.wait;
                pending.wait = (wait * 2).min(LAST);
                Ok(Some(wait))
            }
            _ => {
                self.pending = None;
                Err(Trouble::later("an operation on the list does not end"))
            }
        }
    }

    fn done(&mut self, done: Option<Pending>) {
        let (Some(done), Some(known)) = (done, &mut self.known) else { return };
        if done.is_add {
            self.batch = (self.batch * 2).clamp(1, BATCH);
        }
        for net in done.nets {
            if done.is_add {
                known.insert(net, Item { id: None, is_own: true });
            } else {
                known.remove(&net);
            }
        }
    }
}
