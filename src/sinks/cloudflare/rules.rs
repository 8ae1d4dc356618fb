//! IP access rules of a zone or an account: one rule for each prefix.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Failure, Refusal, id};
use super::tag::{Noted, Tag};
use super::target::{Target, Targets, parse, value};
use crate::config::sinks::Action;
use crate::sinks::mirror::Pass;
use crate::sinks::trouble::Trouble;
use crate::types::Timestamp;

/// The rule exists already (`firewallaccessrules.api.duplicate_of_existing`).
const DUPLICATE: u64 = 10009;
/// Rules of a page.
const PAGE: &str = "100";
/// More pages than an account has room for rules.
const PAGES: u32 = 10_000;
/// A pass makes so many requests at most, and takes so long at most, for a new ban to get its turn.
const REQUESTS: usize = 100;
const TIME: Duration = Duration::from_secs(2);
/// Where there is a backlog, so many requests are saved up for a pass, as each costs a look at everything; but not for longer
/// than this.
const BATCH: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failure that left no doubt everything is looked through again only if it was not for so long.
const FRESH: Duration = Duration::from_secs(3300);
/// Refused one after the other: something is wrong with all of them.
const REFUSALS: usize = 5;
/// The end that a note names may be so wrong.
const SLACK: Duration = Duration::from_secs(3600);

/// The rules of one zone or account.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) api: Api,
    tag: Tag,
    /// `zones/ID/firewall/access_rules/rules`
    path: String,
    is_zone: bool,
    action: Action,
    /// Our rules; `None` until all were looked through.
    known: Option<HashMap<IpNet, Rule>>,
    listing: Option<Listing>,
    listed_at: Option<Instant>,
    /// Prefixes for which somebody else has a rule.
    pub(super) strange: HashMap<IpNet, Strange>,
    /// Those that were warned of.
    warned: HashSet<IpNet>,
    /// What the API does not take, and why; tried again with everything.
    pub(super) rejected: HashMap<IpNet, String>,
    /// Rules of other sinks of this host in the same place.
    pub(super) siblings: usize,
    /// A change is under way whose outcome is not known.
    doubt: bool,
}

/// A rule of ours.
#[derive(Clone, Debug)]
struct Rule {
    id: String,
    mode: String,
    noted: Noted,
}

/// A rule of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Strange {
    /// What it does, if that can be looked up.
    pub(super) mode: Option<String>,
}

impl Strange {
    /// Whether it does what we would, or something like it.
    pub(super) fn lets_through(&self) -> bool {
        self.mode.as_deref() == Some("whitelist")
    }
}

/// Looking through all rules, page by page.
#[derive(Debug, Default)]
struct Listing {
    page: u32,
    found: HashMap<IpNet, Rule>,
    siblings: usize,
    /// What was changed meanwhile: what is known of it is newer than what was found.
    touched: HashSet<IpNet>,
}

/// One thing to do.
enum Step {
    Add(IpNet),
    Remove(IpNet),
    Mend(IpNet),
}

impl Rules {
    pub(super) fn new(api: Api, tag: Tag, path: String, is_zone: bool, action: Action) -> Self {
        Self {
            api,
            tag,
            path,
            is_zone,
            action,
            known: None,
            listing: None,
            listed_at: None,
            strange: HashMap::new(),
            warned: HashSet::new(),
            rejected: HashMap::new(),
            siblings: 0,
            doubt: false,
        }
    }

    /// Rules of ours that are there.
    pub(super) fn shown(&self) -> usize {
        self.known.as_ref().map_or(0, HashMap::len)
    }

    /// Works a while towards `targets`.
    pub(super) async fn pass(
        &mut self,
        targets: &Targets,
        whole: bool,
        now: Timestamp,
    ) -> Result<Pass, Trouble> {
        if whole && (self.listing.is_none() || self.doubt) && self.must_list(targets) {
            self.listing = Some(Listing::default());
            self.doubt = false;
        }
        let mut work = Work::begin();
        // With nothing known all would be taken for new. Else half of the time is for what is new.
        let share = if self.known.is_none() { REQUESTS } else { REQUESTS / 2 };
        while self.listing.is_some() && work.requests < share && self.goes_on(&mut work) {
            self.list_a_page(&mut work).await?;
        }
        let mut left = usize::from(self.listing.is_some());
        if self.known.is_some() {
            let steps = self.plan(targets, now);
            left += steps.len();
            for step in steps {
                if !self.goes_on(&mut work) {
                    break;
                }
                self.take(&step, targets, now, &mut work).await?;
                left -= 1;
            }
            if let Some(told) = work.refused {
                return Err(Trouble::later(told));
            }
        } else {
            left += targets.all.len();
        }
        let now = Instant::now();
        let budget = &mut self.api.budget;
        let wait =
            (left > 0).then(|| budget.wait(left.min(BATCH), now).min(PATIENCE).max(budget.wait(1, now)));
        Ok(Pass { changed: work.changed, left, wait })
    }

    /// A failure that changed nothing (a limit, a page that did not come) costs no other look through everything.
    fn must_list(&self, targets: &Targets) -> bool {
        self.known.is_none()
            || self.doubt
            || targets.all.is_empty()
            || self.listed_at.is_none_or(|at| at.elapsed() >= FRESH)
    }

    fn goes_on(&mut self, work: &mut Work) -> bool {
        work.requests < REQUESTS && work.began.elapsed() < TIME && self.api.may_ask()
    }

    async fn ask(
        &mut self,
        method: Method,
        rule: Option<&str>,
        query: &[(&str, &str)],
        body: Option<&Value>,
        work: &mut Work,
    ) -> Result<Value, Failure> {
        let path = match rule {
            Some(id) => format!("{}/{id}", self.path),
            None => self.path.clone(),
        };
        work.requests += 1;
        let changes = method != Method::GET;
        self.doubt |= changes;
        let answer = self.api.ask(method, &path, query, body).await;
        // What was answered, whatever it was, is known.
        if changes && matches!(answer, Ok(_) | Err(Failure::Said(_))) {
            self.doubt = false;
        }
        answer
    }

    /// The next page of all rules whose note holds our host's tag.
    async fn list_a_page(&mut self, work: &mut Work) -> Result<(), Trouble> {
        let Some(page) = self.listing.as_ref().map(|listing| listing.page + 1) else { return Ok(()) };
        let (search, number) = (self.tag.search().to_owned(), page.to_string());
        let query = [
            ("notes", search.as_str()),
            ("match", "all"),
            ("order", "configuration.value"),
            ("direction", "asc"),
            ("per_page", PAGE),
            ("page", &number),
        ];
        let answer = self
            .ask(Method::GET, None, &query, None, work)
            .await
            .map_err(|e| e.trouble("failed to look through the rules"))?;
        let rules = answer["result"]
            .as_array()
            .ok_or_else(|| Trouble::later("an answer of Cloudflare's API lacks the rules"))?;
        let info = &answer["result_info"];
        let number = |name: &str| info[name].as_u64();
        // A page may be shorter than was asked for; all pages but the last are of one length.
        let more = match (number("total_count"), number("per_page")) {
            (Some(total), Some(per_page)) => u64::from(page) * per_page < total,
            _ => !rules.is_empty(),
        };
        let mut found = Vec::new();
        let mut siblings = 0;
        for rule in rules {
            match self.own(rule) {
                Some((net, rule)) => found.push((net, rule?)),
                None => {
                    let note = rule["notes"].as_str().unwrap_or_default();
                    siblings += usize::from(self.tag.is_sibling(note));
                }
            }
        }
        let Some(listing) = &mut self.listing else { return Ok(()) };
        listing.page = page;
        listing.found.extend(found);
        listing.siblings += siblings;
        if !more || rules.is_empty() || page >= PAGES {
            self.listed();
        }
        Ok(())
    }

    /// All was looked through.
    fn listed(&mut self) {
        let Some(listing) = self.listing.take() else { return };
        let before = self.known.take().unwrap_or_default();
        let mut known = listing.found;
        for net in listing.touched {
            match before.get(&net) {
                Some(rule) => drop(known.insert(net, rule.clone())),
                None => drop(known.remove(&net)),
            }
        }
        self.known = Some(known);
        self.siblings = listing.siblings;
        self.listed_at = Some(Instant::now());
        // Asked about again: others may have taken theirs away.
        self.strange.clear();
        self.rejected.clear();
    }

    /// A rule as it came back, if it is ours: by its tag, and of this zone or account and no other level.
    fn own(&self, rule: &Value) -> Option<(IpNet, Result<Rule, Trouble>)> {
        let noted = self.tag.read(rule["notes"].as_str()?)?;
        let of_zone = rule["scope"]["type"].as_str().map(|level| level == "zone");
        if of_zone.is_some_and(|of_zone| of_zone != self.is_zone) {
            return None;
        }
        let net = parse(rule["configuration"]["value"].as_str()?)?;
        let mode = rule["mode"].as_str().unwrap_or_default().to_owned();
        Some((net, id(&rule["id"]).map(|id| Rule { id, mode, noted })))
    }

    /// What is to be done, in its order: adding the most valuable and removing take turns, notes come last.
    fn plan(&self, targets: &Targets, now: Timestamp) -> Vec<Step> {
        let Some(known) = &self.known else { return Vec::new() };
        let settled = |net: &IpNet| {
            known.contains_key(net) || self.strange.contains_key(net) || self.rejected.contains_key(net)
        };
        let mut adds: Vec<_> = targets.all.iter().filter(|(net, _)| !settled(net)).collect();
        adds.sort_unstable_by_key(|(net, target)| (Reverse(target.rank), **net));
        let mut adds = adds.into_iter().map(|(net, _)| Step::Add(*net));
        let mut steps = Vec::new();
        // While pages are turned nothing is taken away: what moves up over a page's edge would not be seen.
        if self.listing.is_none() {
            let mut removes: Vec<IpNet> =
                known.keys().filter(|net| !targets.all.contains_key(net)).copied().collect();
            removes.sort_unstable();
            for net in removes {
                steps.push(Step::Remove(net));
                steps.extend(adds.next());
            }
        }
        steps.extend(adds);
        if self.listing.is_none() {
            let stale = |net: &IpNet| {
                let target = targets.all.get(net).filter(|_| !self.rejected.contains_key(net))?;
                self.is_stale(known.get(net)?, target, now).then_some(Step::Mend(*net))
            };
            let mut nets: Vec<&IpNet> = known.keys().collect();
            nets.sort_unstable();
            steps.extend(nets.into_iter().filter_map(stale));
        }
        steps
    }

    /// Whether a rule does something else than it should, or its note says an end that is far from it.
    fn is_stale(&self, rule: &Rule, target: &Target, now: Timestamp) -> bool {
        if rule.mode != self.action.word() {
            return true;
        }
        match (rule.noted.end, target.end) {
            (None, None) => false,
            (Some(noted), Some(end)) => {
                let off = noted.since(end).max(end.since(noted));
                off > SLACK.max(end.since(now) / 4)
            }
            _ => true,
        }
    }

    async fn take(
        &mut self,
        step: &Step,
        targets: &Targets,
        now: Timestamp,
        work: &mut Work,
    ) -> Result<(), Trouble> {
        match step {
            Step::Add(net) => {
                if let Some(target) = targets.all.get(net) {
                    // What ends before its turn comes is not sent.
                    if target.end.is_none_or(|end| end > crate::clock::now().max(now)) {
                        self.add(*net, target, work).await?;
                    }
                }
            }
            Step::Remove(net) => {
                if let Some(rule) = self.verified(*net, work).await? {
                    match self.ask(Method::DELETE, Some(&rule.id), &[], None, work).await {
                        Ok(_) => {
                            self.forget(*net);
                            work.changed += 1;
                        }
                        Err(Failure::Said(refusal)) if refusal.status == 404 => self.forget(*net),
                        // Told when the others had their turn.
                        Err(Failure::Said(refusal)) => {
                            let told =
                                format!("failed to remove the rule for {}: {}", value(*net), refusal.told());
                            work.refused.get_or_insert(told);
                        }
                        Err(e) => return Err(e.trouble("failed to remove a rule")),
                    }
                }
            }
            Step::Mend(net) => {
                let Some(target) = targets.all.get(net) else { return Ok(()) };
                if let Some(rule) = self.verified(*net, work).await? {
                    let body = self.body(*net, target);
                    match self.ask(Method::PATCH, Some(&rule.id), &[], Some(&body), work).await {
                        Ok(_) => {
                            let mended = Rule {
                                mode: self.action.word().to_owned(),
                                noted: Noted { end: target.end },
                                ..rule
                            };
                            self.remember(*net, mended);
                            work.changed += 1;
                        }
                        Err(Failure::Said(refusal)) if refusal.status == 404 => self.forget(*net),
                        Err(Failure::Said(refusal)) => drop(self.rejected.insert(*net, refusal.told())),
                        Err(e) => return Err(e.trouble("failed to change a rule")),
                    }
                }
            }
        }
        Ok(())
    }

    fn body(&self, net: IpNet, target: &Target) -> Value {
        json!({
            "mode": self.action.word(),
            "configuration": configuration(net),
            "notes": self.tag.note(target.end, &target.jails),
        })
    }

    async fn add(&mut self, net: IpNet, target: &Target, work: &mut Work) -> Result<(), Trouble> {
        let body = self.body(net, target);
        match self.ask(Method::POST, None, &[], Some(&body), work).await {
            Ok(answer) => {
                // What cannot be told from the answer is found when everything is looked through.
                let id = id(&answer["result"]["id"]).inspect_err(|_| self.doubt = true)?;
                work.refusals = 0;
                work.changed += 1;
                let rule = Rule { id, mode: self.action.word().to_owned(), noted: Noted { end: target.end } };
                self.remember(net, rule);
                Ok(())
            }
            Err(Failure::Said(refusal)) if is_duplicate(&refusal) => {
                work.refusals = 0;
                self.look_up(net, work).await
            }
            Err(Failure::Said(refusal)) => {
                work.refusals += 1;
                let told = refusal.told();
                if work.refusals >= REFUSALS {
                    return Err(Trouble::later(format!("Cloudflare takes no rules: {told}")));
                }
                tracing::warn!("Cloudflare takes no rule for {}: {told}", value(net));
                self.rejected.insert(net, told);
                Ok(())
            }
            Err(e) => Err(e.trouble("failed to add a rule")),
        }
    }

    /// There is a rule for `net` of which we do not know: ours, which is adopted, or somebody else's.
    async fn look_up(&mut self, net: IpNet, work: &mut Work) -> Result<(), Trouble> {
        let target = configuration(net);
        let (value, target) = (value(net), target["target"].as_str().unwrap_or_default().to_owned());
        let mut found = None;
        // For IPv6 the API cannot search; and ours would be known.
        if net.addr().is_ipv4() {
            let query = [
                ("configuration.target", target.as_str()),
                ("configuration.value", value.as_str()),
                ("match", "all"),
                ("per_page", PAGE),
            ];
            let answer = self
                .ask(Method::GET, None, &query, None, work)
                .await
                .map_err(|e| e.trouble("failed to look a rule up"))?;
            let rules = answer["result"].as_array().map_or(&[][..], Vec::as_slice);
            // A search that was not understood finds everything.
            let same = |rule: &&Value| rule["configuration"]["value"].as_str().and_then(parse) == Some(net);
            let (own, others): (Vec<_>, Vec<_>) =
                rules.iter().filter(same).partition(|rule| self.own(rule).is_some());
            if let Some((_, rule)) = own.first().and_then(|rule| self.own(rule)) {
                let rule = rule?;
                self.remember(net, rule);
                return Ok(());
            }
            found = others.first().and_then(|rule| rule["mode"].as_str()).map(str::to_owned);
        }
        self.leave(net, Strange { mode: found });
        Ok(())
    }

    /// Somebody else's rule is left alone.
    fn leave(&mut self, net: IpNet, strange: Strange) {
        if strange.lets_through() && self.warned.len() < 10_000 && self.warned.insert(net) {
            tracing::warn!(
                "{} is banned, and somebody else's rule at Cloudflare lets it through",
                value(net)
            );
        }
        self.strange.insert(net, strange);
    }

    /// Our rule for `net`, fetched afresh: only if its value and its tag are still what they should be. Else it is
    /// forgotten, and left alone.
    async fn verified(&mut self, net: IpNet, work: &mut Work) -> Result<Option<Rule>, Trouble> {
        let Some(id) = self.known.as_ref().and_then(|known| known.get(&net)).map(|rule| rule.id.clone())
        else {
            return Ok(None);
        };
        let answer = match self.ask(Method::GET, Some(&id), &[], None, work).await {
            Ok(answer) => answer,
            Err(Failure::Said(refusal)) if refusal.status == 404 => {
                self.forget(net);
                return Ok(None);
            }
            Err(e) => return Err(e.trouble("failed to fetch a rule")),
        };
        match self.own(&answer["result"]) {
            Some((at, Ok(rule))) if at == net && rule.id == id => Ok(Some(rule)),
            _ => {
                self.forget(net);
                Ok(None)
            }
        }
    }

    fn remember(&mut self, net: IpNet, rule: Rule) {
        if let Some(known) = &mut self.known {
            known.insert(net, rule);
        }
        self.touch(net);
    }

    fn forget(&mut self, net: IpNet) {
        if let Some(known) = &mut self.known {
            known.remove(&net);
        }
        self.touch(net);
    }

    fn touch(&mut self, net: IpNet) {
        if let Some(listing) = &mut self.listing {
            listing.touched.insert(net);
        }
    }
}

/// What a pass has done.
struct Work {
    began: Instant,
    requests: usize,
    changed: usize,
    /// Of what was to be added, one after the other.
    refusals: usize,
    /// Why something could not be removed.
    refused: Option<String>,
}

impl Work {
    fn begin() -> Self {
        Self { began: Instant::now(), requests: 0, changed: 0, refusals: 0, refused: None }
    }
}

fn is_duplicate(refusal: &Refusal) -> bool {
    refusal.codes.contains(&DUPLICATE) || refusal.text.contains("duplicate_of_existing")
}

fn configuration(net: IpNet) -> Value {
    let target = match (net, net.prefix_len() == net.max_prefix_len()) {
        (_, false) => "ip_range",
        (IpNet::V4(_), true) => "ip",
        (IpNet::V6(_), true) => "ip6",
    };
    json!({ "target": target, "value": value(net) })
}
