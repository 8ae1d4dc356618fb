//! Cloudflare as its documentation has it: IP access rules, lists with asynchronous operations, custom rules, limits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::http::{Reply, Request, Server};

pub(crate) const ZONE: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const ACCOUNT: &str = "fedcba9876543210fedcba9876543210";
pub(crate) const TOKEN: &str = "v1.0-Sn3lZJTBX6kkg7OdcBUAxOO963GEIyGQqnFTOFYY";
pub(crate) const EMAIL: &str = "admin@example.org";

/// What it holds, and how it behaves.
#[derive(Default)]
pub(crate) struct World {
    /// By id.
    pub(crate) rules: BTreeMap<String, Value>,
    /// By id, with their items.
    pub(crate) lists: BTreeMap<String, (Value, BTreeMap<String, Value>)>,
    /// Custom rules, once there is what holds them.
    pub(crate) custom: Option<Vec<Value>>,
    /// Room for custom rules.
    pub(crate) custom_room: usize,
    /// The operation under way: its id, how often it is still told to be pending, and what it does.
    operation: Option<(String, u32, Operation)>,
    done: BTreeMap<String, Option<String>>,
    /// How often an operation is told to be pending.
    pub(crate) slowness: u32,
    /// Why the next operation fails.
    pub(crate) fails: Option<String>,
    /// Items a list has room for.
    pub(crate) room: Option<usize>,
    number: u64,
    /// Answers instead of anything else, first of all.
    pub(crate) instead: Vec<Reply>,
    /// Every answer is this.
    pub(crate) always: Option<Reply>,
    /// Changes are made, and half of the answer is sent: so often.
    pub(crate) half: u32,
    /// So many requests are allowed; what is more is turned away for so long.
    pub(crate) allowed: Option<(u64, Duration)>,
    asked: u64,
    closed: Option<Instant>,
    /// Requests that came while it was closed.
    pub(crate) impatient: u64,
    pub(crate) posted: BTreeMap<String, u32>,
    pub(crate) deleted: Vec<Value>,
    /// Credentials besides the token.
    pub(crate) key: Option<String>,
    pub(crate) may: bool,
}

enum Operation {
    Add(String, Vec<Value>),
    Remove(String, Vec<String>),
}

/// A running stand-in.
pub(crate) struct Api {
    pub(crate) server: Server,
    world: Arc<Mutex<World>>,
}

impl Api {
    pub(crate) fn start() -> Self {
        let world = World { custom_room: 5, may: true, ..World::default() };
        let world = Arc::new(Mutex::new(world));
        let inner = Arc::clone(&world);
        let server = Server::start(move |request| inner.lock().unwrap().answer(request));
        Self { server, world }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/client/v4", self.server.url())
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// A rule of somebody.
    pub(crate) fn put(&self, value: &str, mode: &str, notes: &str) -> String {
        self.world().put_rule(value, mode, notes, "zone")
    }

    /// The values of all rules whose notes hold this.
    pub(crate) fn values(&self, notes: &str) -> Vec<String> {
        let world = self.world();
        let rules = world.rules.values().filter(|rule| rule["notes"].as_str().unwrap().contains(notes));
        let mut values: Vec<String> =
            rules.map(|rule| rule["configuration"]["value"].as_str().unwrap().to_owned()).collect();
        values.sort();
        values
    }

    /// The notes of the rule for `value`.
    pub(crate) fn notes(&self, value: &str) -> Option<String> {
        let world = self.world();
        let rule = world.rules.values().find(|rule| rule["configuration"]["value"] == value)?;
        Some(rule["notes"].as_str().unwrap().to_owned())
    }

    /// The addresses of a list.
    pub(crate) fn items(&self, name: &str) -> Vec<String> {
        let world = self.world();
        let mut items: Vec<String> = world
            .lists
            .values()
            .filter(|(list, _)| list["name"] == name)
            .flat_map(|(_, items)| items.values())
            .map(|item| item["ip"].as_str().unwrap().to_owned())
            .collect();
        items.sort();
        items
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        self.server.requests().iter().filter(|request| request.method == method).count()
    }
}

fn yes(result: &Value) -> Reply {
    Reply::json(200, &json!({ "success": true, "errors": [], "messages": [], "result": result }))
}

fn no(status: u16, code: u64, message: &str) -> Reply {
    let error = json!({ "code": code, "message": message });
    Reply::json(status, &json!({ "success": false, "errors": [error], "messages": [], "result": null }))
}

impl World {
    fn next(&mut self) -> String {
        self.number += 1;
        // In no order that means anything.
        format!("{:016x}{:016x}", self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15), self.number)
    }

    pub(crate) fn put_rule(&mut self, value: &str, mode: &str, notes: &str, level: &str) -> String {
        let id = self.next();
        let target = if value.contains('/') {
            "ip_range"
        } else if value.contains(':') {
            "ip6"
        } else {
            "ip"
        };
        let rule = json!({
            "id": id, "mode": mode, "notes": notes, "scope": { "id": ZONE, "type": level },
            "configuration": { "target": target, "value": spelled(value) },
        });
        self.rules.insert(id.clone(), rule);
        id
    }

    pub(crate) fn put_list(&mut self, name: &str, kind: &str) -> String {
        let id = self.next();
        let list = json!({ "id": id, "name": name, "kind": kind, "num_items": 0 });
        self.lists.insert(id.clone(), (list, BTreeMap::new()));
        id
    }

    pub(crate) fn put_item(&mut self, list: &str, ip: &str, comment: &str) {
        let id = self.next();
        let item = json!({ "id": id, "ip": ip, "comment": comment });
        self.lists.get_mut(list).unwrap().1.insert(id, item);
    }

    fn answer(&mut self, request: &Request) -> Reply {
        if let Some(reply) = &self.always {
            return reply.clone();
        }
        if !self.instead.is_empty() {
            return self.instead.remove(0);
        }
        self.asked += 1;
        if let Some(closed) = self.closed {
            if Instant::now() < closed {
                self.impatient += 1;
                return no(429, 10429, "rate limited");
            }
            self.closed = None;
            self.asked = 1;
        }
        let mut limits = None;
        if let Some((allowed, time)) = self.allowed {
            if self.asked > allowed {
                self.closed = Some(Instant::now() + time);
                // As documented: seconds, rounded up.
                let wait = time.as_millis().div_ceil(1000);
                return no(429, 10429, "More than 1200 requests per 300 seconds reached.")
                    .with("retry-after", wait)
                    .with("ratelimit", format!("\"default\";r=0;t={wait}"))
                    .with("ratelimit-policy", format!("\"default\";q={allowed};w=300"));
            }
            limits = Some((allowed - self.asked, allowed));
        }
        let reply = self.route(request);
        if request.method != "GET" && self.half > 0 {
            self.half -= 1;
            if let Reply::Answer(status, _, body) = reply {
                return Reply::Half(status, body);
            }
        }
        match limits {
            Some((left, all)) => reply
                .with("ratelimit", format!("\"default\";r={left};t=1"))
                .with("ratelimit-policy", format!("\"default\";q={all};w=300")),
            None => reply,
        }
    }

    fn route(&mut self, request: &Request) -> Reply {
        let by_token = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
        let by_key = self.key.is_some()
            && request.header("x-auth-email") == Some(EMAIL)
            && request.header("x-auth-key") == self.key.as_deref();
        if !by_token && !by_key {
            // It may well quote what it was given.
            let given = request.header("authorization").or_else(|| request.header("x-auth-key"));
            let given = given.unwrap_or_default();
            return no(403, 9109, &format!("Invalid access token {given}"));
        }
        if !self.may {
            return no(403, 10000, "Authentication error");
        }
        let path: Vec<&str> = request.path.trim_start_matches("/client/v4/").split('/').collect();
        let method = request.method.as_str();
        match (method, path.as_slice()) {
            ("GET", ["user", "tokens", "verify"]) => yes(&json!({ "id": "x", "status": "active" })),
            (_, ["zones", ZONE, "firewall", "access_rules", "rules", rest @ ..])
            | (_, ["accounts", ACCOUNT, "firewall", "access_rules", "rules", rest @ ..]) => {
                self.access_rules(method, rest, request)
            }
            (_, ["accounts", ACCOUNT, "rules", "lists", rest @ ..]) => self.rule_lists(method, rest, request),
            (_, ["zones", ZONE, "rulesets", rest @ ..]) => self.rulesets(method, rest, request),
            _ => no(
                404,
                7003,
                &format!("Could not route to {}, perhaps your object identifier is invalid?", request.path),
            ),
        }
    }

    fn access_rules(&mut self, method: &str, rest: &[&str], request: &Request) -> Reply {
        match (method, rest) {
            ("GET", []) => self.find_rules(request),
            ("POST", []) => {
                let body = request.json();
                let value = body["configuration"]["value"].as_str().unwrap().to_owned();
                let Some(value) = accepted(&body["configuration"]) else {
                    return no(400, 10001, &format!("firewallaccessrules.api.not_acceptable {value}"));
                };
                *self.posted.entry(value.clone()).or_default() += 1;
                if self.rules.values().any(|rule| rule["configuration"]["value"] == *value) {
                    return no(400, 10009, "firewallaccessrules.api.duplicate_of_existing");
                }
                let level = if request.path.contains("/zones/") { "zone" } else { "organization" };
                let id = self.put_rule(
                    &value,
                    body["mode"].as_str().unwrap(),
                    body["notes"].as_str().unwrap(),
                    level,
                );
                yes(&self.rules[&id])
            }
            (_, [id]) if !self.rules.contains_key(*id) => no(404, 10001, "firewallaccessrules.api.not_found"),
            ("GET", [id]) => yes(&self.rules[*id]),
            ("PATCH", [id]) => {
                let body = request.json();
                let rule = self.rules.get_mut(*id).unwrap();
                if body["configuration"]["value"].as_str().map(spelled)
                    != rule["configuration"]["value"].as_str().map(str::to_owned)
                {
                    return no(400, 10012, "only mode and notes can be changed");
                }
                rule["mode"] = body["mode"].clone();
                rule["notes"] = body["notes"].clone();
                yes(&rule.clone())
            }
            ("DELETE", [id]) => {
                let rule = self.rules.remove(*id).unwrap();
                self.deleted.push(rule);
                yes(&json!({ "id": id }))
            }
            _ => no(405, 10405, "Method not allowed"),
        }
    }

    /// Rules by notes, target and value; a value is searched for only as far as it is documented.
    fn find_rules(&self, request: &Request) -> Reply {
        if request.query("configuration.value").is_some_and(|value| value.contains(':')) {
            return no(400, 10021, "cannot search for IPv6");
        }
        let fits = |rule: &&Value| {
            let notes = rule["notes"].as_str().unwrap().to_lowercase();
            request.query("notes").is_none_or(|wanted| notes.contains(&wanted.to_lowercase()))
                && request.query("configuration.value").is_none_or(|v| rule["configuration"]["value"] == *v)
                && request.query("configuration.target").is_none_or(|t| rule["configuration"]["target"] == *t)
        };
        let mut found: Vec<&Value> = self.rules.values().filter(fits).collect();
        found.sort_by_key(|rule| rule["configuration"]["value"].as_str().unwrap().to_owned());
        let number = |name: &str, usual: usize| request.query(name).map_or(usual, |n| n.parse().unwrap());
        // It gives fewer than were asked for.
        let (page, per_page) = (number("page", 1), number("per_page", 20).min(50));
        assert!(per_page == 1 || per_page % 5 == 0);
        let total = found.len();
        let found: Vec<&Value> = found.into_iter().skip((page - 1) * per_page).take(per_page).collect();
        let info = json!({
            "page": page, "per_page": per_page, "count": found.len(), "total_count": total,
            "total_pages": total.div_ceil(per_page),
        });
        Reply::json(
            200,
            &json!({ "success": true, "errors": [], "messages": [], "result": found, "result_info": info }),
        )
    }

    fn rule_lists(&mut self, method: &str, rest: &[&str], request: &Request) -> Reply {
        match (method, rest) {
            ("GET", []) => {
                let lists: Vec<&Value> = self.lists.values().map(|(list, _)| list).collect();
                yes(&json!(lists))
            }
            ("POST", []) => {
                let body = request.json();
                let id = self.put_list(body["name"].as_str().unwrap(), body["kind"].as_str().unwrap());
                yes(&self.lists[&id].0)
            }
            ("GET", ["bulk_operations", id]) => self.operation(id),
            (_, [list, ..]) if !self.lists.contains_key(*list) => no(404, 10001, "list not found"),
            ("GET", [list, "items"]) => self.find_items(list, request),
            ("GET", [list, "items", id]) => match self.lists[*list].1.get(*id) {
                Some(item) => yes(item),
                None => no(404, 10030, "filters.api.not_found"),
            },
            ("POST" | "DELETE", [list, "items"]) => {
                if self.operation.is_some() {
                    return no(429, 10046, "a bulk operation is in progress");
                }
                let body = request.json();
                let operation = if method == "POST" {
                    let items = body.as_array().unwrap();
                    let mut seen = std::collections::BTreeSet::new();
                    for (n, item) in items.iter().enumerate() {
                        let ip = item["ip"].as_str().unwrap();
                        let net: IpNet = ip.parse().unwrap_or_else(|_| ip.parse::<IpAddr>().unwrap().into());
                        if !seen.insert(net) {
                            return no(400, 10028, "filters.api.duplicate_item_value");
                        }
                        let lengths = if net.addr().is_ipv4() { 8..=32 } else { 12..=64 };
                        if !lengths.contains(&net.prefix_len()) || ip == "203.0.113.66" {
                            return no(400, 10035, &format!("invalid value for ip at position {n}"));
                        }
                    }
                    Operation::Add((*list).to_owned(), items.clone())
                } else {
                    let ids = body["items"].as_array().unwrap().iter();
                    let ids = ids.map(|item| item["id"].as_str().unwrap().to_owned()).collect();
                    Operation::Remove((*list).to_owned(), ids)
                };
                let id = self.next();
                self.operation = Some((id.clone(), self.slowness, operation));
                yes(&json!({ "operation_id": id }))
            }
            _ => no(405, 10405, "Method not allowed"),
        }
    }

    fn find_items(&self, list: &str, request: &Request) -> Reply {
        let start: usize =
            request.query("cursor").map_or(0, |c| c.trim_start_matches("after-").parse().unwrap());
        let size: usize = request.query("per_page").unwrap().parse().unwrap();
        let items = &self.lists[list].1;
        let page: Vec<&Value> = items.values().skip(start).take(size.min(100)).collect();
        let next = start + page.len();
        let mut info = json!({});
        if next < items.len() {
            info = json!({ "cursors": { "after": format!("after-{next}") } });
        }
        Reply::json(
            200,
            &json!({ "success": true, "errors": [], "messages": [], "result": page, "result_info": info }),
        )
    }

    /// How an operation is getting on; it is somebody's who never asks if nobody does.
    fn operation(&mut self, id: &str) -> Reply {
        if let Some(error) = self.done.get(id) {
            return match error {
                None => yes(&json!({ "id": id, "status": "completed", "completed": "2026-01-01T08:00:00Z" })),
                Some(error) => yes(&json!({ "id": id, "status": "failed", "error": error })),
            };
        }
        match &mut self.operation {
            Some((own, left, _)) if own == id && *left > 0 => {
                *left -= 1;
                yes(&json!({ "id": id, "status": if *left > 1 { "pending" } else { "running" } }))
            }
            Some((own, ..)) if own == id => {
                self.finish();
                self.operation(id)
            }
            _ => no(404, 10001, "operation not found"),
        }
    }

    /// Ends the operation under way.
    pub(crate) fn finish(&mut self) {
        let Some((id, _, operation)) = self.operation.take() else { return };
        if let Some(error) = self.fails.take() {
            self.done.insert(id, Some(error));
            return;
        }
        match operation {
            Operation::Add(list, items) => {
                if self.room.is_some_and(|room| self.lists[&list].1.len() + items.len() > room) {
                    let error = "This list is at the maximum number of items".to_owned();
                    self.done.insert(id, Some(error));
                    return;
                }
                for mut item in items {
                    *self.posted.entry(item["ip"].as_str().unwrap().to_owned()).or_default() += 1;
                    // An item that is there is overwritten.
                    let old = self.lists[&list].1.iter().find(|(_, old)| old["ip"] == item["ip"]);
                    let item_id = old.map(|(id, _)| id.clone()).unwrap_or_else(|| self.next());
                    item["id"] = json!(item_id);
                    self.lists.get_mut(&list).unwrap().1.insert(item_id, item);
                }
            }
            Operation::Remove(list, ids) => {
                for item in ids {
                    let gone = self.lists.get_mut(&list).unwrap().1.remove(&item);
                    self.deleted.extend(gone);
                }
            }
        }
        self.done.insert(id, None);
    }

    /// Somebody else changes a list, and takes as long as nobody calls [`World::finish`].
    pub(crate) fn occupy(&mut self) {
        let list = self.lists.keys().next().cloned().unwrap_or_default();
        self.operation = Some(("theirs".to_owned(), 1_000_000, Operation::Add(list, Vec::new())));
    }

    fn rulesets(&mut self, method: &str, rest: &[&str], request: &Request) -> Reply {
        const RULESET: &str = "2f2feab2026849078ba485f918791bdc";
        let ruleset = |rules: &[Value]| json!({ "id": RULESET, "kind": "zone", "phase": "http_request_firewall_custom", "rules": rules });
        match (method, rest) {
            ("GET", ["phases", "http_request_firewall_custom", "entrypoint"]) => match &self.custom {
                Some(rules) => yes(&ruleset(rules)),
                None => no(
                    404,
                    10003,
                    "could not find entrypoint ruleset in the http_request_firewall_custom phase",
                ),
            },
            ("POST", []) => {
                assert!(self.custom.is_none(), "the rules of others would be gone");
                let mut rules = request.json()["rules"].as_array().unwrap().clone();
                for rule in &mut rules {
                    rule["id"] = json!(self.next());
                }
                self.custom = Some(rules);
                yes(&ruleset(self.custom.as_ref().unwrap()))
            }
            ("POST", [RULESET, "rules"]) => {
                let mut rule = request.json();
                rule["id"] = json!(self.next());
                let room = self.custom_room;
                let rules = self.custom.as_mut().unwrap();
                if rules.len() >= room {
                    return no(
                        400,
                        20217,
                        "exceeded maximum number of rules in the phase http_request_firewall_custom: 6 out of 5",
                    );
                }
                rules.push(rule);
                yes(&ruleset(rules))
            }
            ("PATCH", [RULESET, "rules", id]) => {
                let body = request.json();
                let rules = self.custom.as_mut().unwrap();
                let rule = rules.iter_mut().find(|rule| rule["id"] == *id).unwrap();
                for (name, value) in body.as_object().unwrap() {
                    rule[name] = value.clone();
                }
                yes(&ruleset(rules))
            }
            _ => no(405, 10405, "Method not allowed"),
        }
    }
}

/// The API spells IPv6 in full.
fn spelled(value: &str) -> String {
    let (address, length) = value.split_once('/').map_or((value, None), |(a, l)| (a, Some(l)));
    let address = match address.parse().unwrap() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|s| format!("{s:04x}")).join(":"),
    };
    length.map_or_else(|| address.clone(), |length| format!("{address}/{length}"))
}

/// The value as it is kept, if the target takes it.
fn accepted(configuration: &Value) -> Option<String> {
    let value = configuration["value"].as_str()?;
    let good = match configuration["target"].as_str()? {
        "ip" => value.parse::<std::net::Ipv4Addr>().is_ok() && value != "203.0.113.66",
        "ip6" => value.parse::<std::net::Ipv6Addr>().is_ok(),
        "ip_range" => {
            let net: IpNet = value.parse().ok()?;
            let lengths: &[u8] = if net.addr().is_ipv4() { &[16, 24] } else { &[32, 48, 64] };
            net == net.trunc() && lengths.contains(&net.prefix_len())
        }
        _ => false,
    };
    good.then(|| spelled(value))
}
