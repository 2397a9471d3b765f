//! What a warrant grants, written out line by line, each with the rule that it comes from; and questions about it.
//!
//! Promises: the lines are data taken from the warrant, complete enough that somebody with nothing but the lines comes to
//! the same answers as the enforcing code (a property test does that); an answer is the enforcing code's own decision, and
//! the line that is named as its reason is one that matches.

mod question;

pub use question::{Answer, Question, QuestionError};

use crate::agent::AgentRole;
use crate::id::WarrantId;
use crate::money::MicroUsd;
use crate::policy::Walls;
use crate::warrant::{
    HostChoice, HostPattern, HostRules, ModelGrant, PathPattern, PushGrant, RepositoryGrant, SecretGrant,
    Warrant, WarrantKind,
};
use serde::Serialize;

/// What kind of rule a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The template of the role.
    Template,
    /// The kind of the warrant, whatever else it says.
    Kind,
    /// An option of the run, or what it was started on.
    Option,
    /// The agent's profile.
    Agent,
    /// What the engine asks by itself.
    Engine,
    /// The settings in the base commit of the repository; they only take away, but for where text may look like a secret.
    Repository,
    /// A policy that denies it.
    Policy,
    /// A narrowing while the run went on.
    Narrowing,
    /// A rule that holds for every warrant.
    House,
}

/// The rule that a line comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// What kind of rule.
    pub origin: Origin,
    /// Which one, in words.
    pub text: String,
}

impl Source {
    /// A source.
    #[must_use]
    pub fn new(origin: Origin, text: impl Into<String>) -> Self {
        Self { origin, text: text.into() }
    }
}

/// One thing that is granted (or, in [`Explanation::protected`], kept from being changed), and the rule that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line<T> {
    /// What.
    pub grant: T,
    /// Which rule says so.
    pub source: Source,
}

/// A bound with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// Its name, as in the warrant.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
}

/// Something that was granted at first and is not any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TakenAway {
    /// What.
    pub what: String,
    /// The narrowed warrant that lacks it first.
    pub by: WarrantId,
}

/// What is known about where a warrant's grants come from. What is not known is derived from the role's template: what
/// differs from it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The agent's name, where one was chosen.
    pub agent: Option<String>,
    /// Where the role comes from.
    pub role: Option<Source>,
    /// Hosts and classes as the person chose them.
    pub hosts: Vec<HostChoice>,
    /// Paths that the person protected.
    pub protect: Vec<PathPattern>,
    /// The model that was chosen, and by whom.
    pub model: Option<(String, Source)>,
    /// The warrants that this one was narrowed from, the first one first.
    pub narrowed_from: Vec<Warrant>,
    /// What policies deny.
    pub walls: Walls,
}

/// A warrant, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The kind.
    pub kind: Line<WarrantKind>,
    /// The role.
    pub role: Line<AgentRole>,
    /// What may be read.
    pub read: Vec<Line<RepositoryGrant>>,
    /// Which paths a push may change …
    pub write: Vec<Line<PathPattern>>,
    /// … and which it may not in spite of that, in any spelling of upper and lower case.
    pub protected: Vec<Line<PathPattern>>,
    /// Where text that only looks like a secret may be pushed.
    pub fixtures: Vec<Line<PathPattern>>,
    /// Whether the files of the workspace may be written.
    pub workspace: Line<bool>,
    /// Whether what the repository holds or the run made may be executed.
    pub exec: Line<bool>,
    /// Whether submodules are checked out.
    pub submodules: Line<bool>,
    /// Whether LFS content is fetched.
    pub lfs: Line<bool>,
    /// What may be pushed.
    pub push: Line<Option<PushGrant>>,
    /// Which hosts may be reached …
    pub hosts: Vec<Line<HostPattern>>,
    /// … which never, since a policy denies them …
    pub kept_out: Vec<Line<HostPattern>>,
    /// … and what of them, where that is less than everything. A request passes when every entry for its host lets it.
    pub rules: Vec<Line<HostRules>>,
    /// Which secrets may be used where.
    pub secrets: Vec<Line<SecretGrant>>,
    /// Which models may be asked.
    pub models: Vec<Line<ModelGrant>>,
    /// How much may be spent, in millionths of a US dollar.
    pub budget: Line<MicroUsd>,
    /// The bounds of the run.
    pub bounds: Vec<Line<Bound>>,
    /// What was taken away while the run went on.
    pub taken_away: Vec<TakenAway>,
    /// What no warrant ever grants.
    pub never: &'static [&'static str],
}

/// What no warrant grants, whatever it says. Where each is enforced stands in SECURITY.md.
const NEVER: &[&str] = &[
    "read another repository, another branch, or an object that no granted ref leads to",
    "force a push, delete a ref, push a tag or a second ref",
    "reach a private, loopback, link-local or metadata address, unless the operator named it for a granted host",
    "see a key, a token or a secret: the broker holds them",
    "see files, processes or networks of this machine beyond its workspace and the granted toolchains",
    "widen this warrant, start a run or answer for a person",
];

/// The warrant of the chain that first lacks or has something.
fn first(chain: &[&Warrant], test: impl Fn(&Warrant) -> bool) -> Option<WarrantId> {
    chain.iter().skip(1).find(|one| test(one)).map(|one| one.id)
}

fn narrowing(id: WarrantId) -> Source {
    Source::new(Origin::Narrowing, format!("narrowed by warrant {id}"))
}

impl Explanation {
    /// Explains a warrant.
    #[must_use]
    pub fn of(warrant: &Warrant, provenance: &Provenance) -> Self {
        let template = warrant.role.template();
        let chain: Vec<&Warrant> = provenance.narrowed_from.iter().chain(std::iter::once(warrant)).collect();
        let began = chain.first().copied().unwrap_or(warrant);
        let of_role = || Source::new(Origin::Template, format!("template of the role {}", warrant.role));
        let of_kind = || Source::new(Origin::Kind, format!("a {} warrant", warrant.kind));
        let of_repository = || Source::new(Origin::Repository, "tipstaff.toml of the base");
        let option = |text: &str| Source::new(Origin::Option, text);
        let of_policy = |because: &str| Source::new(Origin::Policy, format!("policy of {because}"));
        // A value that is the template's, was asked for, or was lowered since.
        let value = |is_first: bool, is_template: bool, changed: Option<WarrantId>, name: &str| match changed
        {
            Some(id) if !is_first => narrowing(id),
            _ if is_template => of_role(),
            _ => option(name),
        };
        let line = |grant, source| Line { grant, source };

        let read = warrant
            .repositories
            .iter()
            .map(|one| Line { grant: one.clone(), source: option("the repository and base of the run") });
        let write = warrant.paths.write.iter().map(|path| Line {
            grant: path.clone(),
            source: match first(&chain, |one| one.paths.write.contains(path)) {
                Some(id) if !began.paths.write.contains(path) => narrowing(id),
                _ if template.write.contains(path) => of_role(),
                _ => option("an option of the run"),
            },
        });
        let protected = warrant.paths.protected.iter().map(|path| Line {
            grant: path.clone(),
            source: match first(&chain, |one| one.paths.protected.contains(path)) {
                Some(id) if !began.paths.protected.contains(path) => narrowing(id),
                _ if template.protected.contains(path) => of_role(),
                _ if provenance.protect.contains(path) => option("--protect"),
                _ => match provenance.walls.paths.iter().find(|wall| wall.what == *path) {
                    Some(wall) => of_policy(&wall.because),
                    None => of_repository(),
                },
            },
        });
        let fixtures =
            warrant.paths.fixtures.iter().map(|path| Line { grant: path.clone(), source: of_repository() });
        let bit = |granted: bool, at_first: bool, usual: Source, changed: Option<WarrantId>| match changed {
            Some(id) if granted != at_first => Line { grant: granted, source: narrowing(id) },
            _ => Line { grant: granted, source: usual },
        };
        let exec_source = if warrant.kind.may_execute() { of_role() } else { of_kind() };
        let push_source = match first(&chain, |one| one.push_grant().is_none()) {
            Some(id) if began.push_grant().is_some() && warrant.push_grant().is_none() => narrowing(id),
            _ if warrant.kind.may_push() => of_role(),
            _ => of_kind(),
        };
        let hosts = warrant
            .egress
            .iter()
            .map(|host| Line { grant: host.clone(), source: host_source(provenance, host) });
        let kept_out = provenance
            .walls
            .hosts
            .iter()
            .map(|wall| Line { grant: wall.what.clone(), source: of_policy(&wall.because) });
        let rules = warrant.hosts.iter().map(|rules| Line {
            grant: rules.clone(),
            source: match first(&chain, |one| one.hosts.contains(rules)) {
                Some(id) if !began.hosts.contains(rules) => narrowing(id),
                _ if rules.requests.iter().any(|one| !one.tools.is_empty()) => option("--allow-tool"),
                _ if !rules.requests.is_empty() => option("--allow-request"),
                _ => option("--inspect, or a secret of that host"),
            },
        });
        let secrets = warrant
            .secrets
            .iter()
            .map(|one| Line { grant: one.clone(), source: option(&format!("--secret {}", one.name)) });
        let models = warrant
            .models
            .iter()
            .map(|one| Line { grant: one.clone(), source: model_source(provenance, one) });
        let budget = value(
            warrant.budget == began.budget,
            warrant.budget == template.budget,
            first(&chain, |one| one.budget == warrant.budget),
            "--budget",
        );
        let usual = template.limits.rows();
        let at_first = began.limits.rows();
        let bounds = warrant.limits.rows().into_iter().enumerate().map(|(index, (name, amount))| {
            let of = |rows: &[(&'static str, u64)]| rows.get(index).map(|(_, value)| *value);
            let changed = first(&chain, |one| of(&one.limits.rows()) == Some(amount));
            let name_of_option = if name == "wall_ms" { "--timeout" } else { "an option of the run" };
            let source =
                value(of(&at_first) == Some(amount), of(&usual) == Some(amount), changed, name_of_option);
            Line { grant: Bound { name, value: amount }, source }
        });
        Self {
            kind: match first(&chain, |one| one.kind == warrant.kind) {
                Some(id) if began.kind != warrant.kind => line(warrant.kind, narrowing(id)),
                _ => line(warrant.kind, of_role()),
            },
            role: Line {
                grant: warrant.role,
                source: provenance.role.clone().unwrap_or_else(|| match &provenance.agent {
                    Some(agent) => Source::new(Origin::Agent, format!("the agent {agent}, or --role")),
                    None => option("--role, or builder where none is given"),
                }),
            },
            read: read.collect(),
            write: write.collect(),
            protected: protected.collect(),
            fixtures: fixtures.collect(),
            workspace: Line { grant: warrant.kind.may_write(), source: of_kind() },
            exec: bit(
                warrant.permits_exec().is_ok(),
                began.permits_exec().is_ok(),
                exec_source,
                first(&chain, |one| one.permits_exec().is_err()),
            ),
            submodules: bit(
                warrant.tools.submodules,
                began.tools.submodules,
                option("an option of the run"),
                first(&chain, |one| !one.tools.submodules),
            ),
            lfs: bit(
                warrant.tools.lfs,
                began.tools.lfs,
                option("an option of the run"),
                first(&chain, |one| !one.tools.lfs),
            ),
            push: Line { grant: warrant.push_grant().cloned(), source: push_source },
            hosts: hosts.collect(),
            kept_out: kept_out.collect(),
            rules: rules.collect(),
            secrets: secrets.collect(),
            models: models.collect(),
            budget: Line { grant: warrant.budget, source: budget },
            bounds: bounds.collect(),
            taken_away: taken_away(&chain),
            never: NEVER,
        }
    }
}

fn host_source(provenance: &Provenance, host: &HostPattern) -> Source {
    let asked = provenance.hosts.iter().find(|choice| choice.hosts().iter().any(|one| one.covers(host)));
    let text = asked.map_or_else(|| "an option of the run".to_owned(), |one| format!("--allow-host {one}"));
    Source::new(Origin::Option, text)
}

fn model_source(provenance: &Provenance, grant: &ModelGrant) -> Source {
    match &provenance.model {
        Some((model, source)) if grant.model.to_string() == *model => source.clone(),
        _ => Source::new(Origin::Engine, "what the engine asks by itself"),
    }
}

/// What the first warrant of a chain grants and the last does not, each with the one that lacks it first.
fn taken_away(chain: &[&Warrant]) -> Vec<TakenAway> {
    let (Some(began), Some(now)) = (chain.first(), chain.last()) else { return Vec::new() };
    let mut found = Vec::new();
    let mut look = |what: String, has: &dyn Fn(&Warrant) -> bool| {
        if has(began)
            && !has(now)
            && let Some(by) = first(chain, |one| !has(one))
        {
            found.push(TakenAway { what, by });
        }
    };
    for one in &began.repositories {
        look(format!("read {}", one.name), &|warrant| warrant.repositories.contains(one));
    }
    if let Some(push) = began.push_grant() {
        look(format!("push {}", push.reference), &|warrant| warrant.push_grant().is_some());
    }
    for one in &began.paths.write {
        look(format!("write {one}"), &|warrant| warrant.paths.write.contains(one));
    }
    look("exec".to_owned(), &|warrant| warrant.permits_exec().is_ok());
    for one in &began.egress {
        look(format!("reach {one}"), &|warrant| warrant.egress.contains(one));
    }
    for one in &began.secrets {
        look(format!("use {} at {}{}", one.name, one.host, one.path), &|warrant| {
            warrant.secrets.contains(one)
        });
    }
    for one in &began.models {
        look(format!("ask {}/{}", one.provider, one.model), &|warrant| warrant.models.contains(one));
    }
    look(format!("spend {}", began.budget), &|warrant| warrant.budget >= began.budget);
    look("the time it had at first".to_owned(), &|warrant| {
        warrant.expires_at >= began.expires_at && warrant.limits.wall_ms >= began.limits.wall_ms
    });
    found
}
