//! `tipstaff policy`: what may be done, and which rule says so.

use crate::cli::{ExplainArgs, PolicyCommand, RunArgs, RunChoice};
use crate::context::Context;
use crate::exit::Problem;
use crate::learn::shown;
use crate::output::{Output, Tone, span, time};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use tipstaff_model::explain::{Answer, Explanation, Line, Origin, Provenance, Question, Source};
use tipstaff_model::policy::Walls;
use tipstaff_model::warrant::{HostChoice, Lapse, RequestRule};
use tipstaff_model::{Rule, RunId, TaskId, TaskSpec, Warrant, WarrantId};
use tipstaff_store::{KeyPurpose, StoredWarrant};

/// Columns of a page.
const WIDTH: usize = 100;

/// Carries out `tipstaff policy …`.
pub(crate) async fn policy(command: PolicyCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::Explain(arguments) => explain(*arguments, &context).await,
        PolicyCommand::Set(arguments) => super::policies::set(&arguments, &context).await,
        PolicyCommand::Show => super::policies::show(&context).await,
        PolicyCommand::Unset(holder) => super::policies::unset(&holder, &context).await,
        PolicyCommand::Check(arguments) => super::policies::check::check(&arguments, &context).await,
        PolicyCommand::Judge(arguments) => super::policies::judge::judge(&arguments, &context).await,
        PolicyCommand::Test(arguments) => super::policies::cases::test(&arguments, &context).await,
        PolicyCommand::Simulate(arguments) => super::policies::simulate::simulate(&arguments, &context).await,
    }
}

/// What is explained.
struct Subject {
    warrant: Warrant,
    provenance: Provenance,
    /// Where it was signed: its state. A run that would be has none.
    issued: Option<Issued>,
}

/// The state of a warrant that was signed.
struct Issued {
    run: RunId,
    revoked_at: Option<i64>,
    lapse: Option<Lapse>,
    replaced_by: Option<WarrantId>,
}

async fn explain(arguments: ExplainArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let questions = arguments
        .can
        .iter()
        .map(|text| text.parse::<Question>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Problem::usage("question", error.to_string()))?;
    let subject = match (&arguments.warrant, &arguments.of_run) {
        (Some(id), _) => {
            let found = super::warrants::find(context, id).await?;
            stored(context, found).await?
        }
        (None, Some(run)) => {
            let (run, _) = super::runs::find(context, &RunChoice { run: Some(run.clone()) }).await?;
            let mut read = context.store.read(context.scope()).await?;
            let found = read.warrant_of_run(run.id).await?;
            drop(read);
            let found = found.ok_or_else(|| {
                Problem::usage("warrant-unknown", format!("run {} has no warrant", run.id.short()))
            })?;
            stored(context, found).await?
        }
        (None, None) => would_be(context, arguments.options).await?,
    };
    let explanation = Explanation::of(&subject.warrant, &subject.provenance);
    let answers: Vec<Told> = questions
        .iter()
        .map(|question| told(&subject, explanation.answer(&subject.warrant, question)))
        .collect();
    let output = &context.output;
    if output.json {
        output.object(&object(&subject, &explanation, &answers));
    } else if answers.is_empty() {
        page(output, &subject, &explanation);
    } else {
        answers.iter().for_each(|one| say(output, one));
    }
    Ok(ExitCode::from(if answers.iter().all(|one| one.yes) { 0 } else { 3 }))
}

/// A warrant that was signed, with those that it was narrowed from.
async fn stored(context: &Context, found: StoredWarrant) -> anyhow::Result<Subject> {
    let mut read = context.store.read(context.scope()).await?;
    let keys = read.verifying_keys(KeyPurpose::Warrant).await?;
    let grant = found.signed.warrant;
    let all = read.warrant_list_of_run(found.run).await?;
    let current = read.warrant_of_run(found.run).await?.map(|one| one.signed.warrant.id);
    let run = read.run_get(found.run).await?;
    let task = match run {
        Some(run) => read.task_get(run.task).await?,
        None => None,
    };
    let genuine = |one: &StoredWarrant| keys.iter().any(|key| one.signed.verify(key).is_ok());
    let mut narrowed_from = Vec::new();
    let mut next = Some(grant.id);
    // Bounded: a chain that was tampered with may be a ring.
    for _ in 0..=all.len() {
        let Some(one) = next.and_then(|id| all.iter().find(|one| one.signed.warrant.id == id)) else { break };
        if !genuine(one) {
            return Err(Problem::refused(
                "warrant-forged",
                format!(
                    "the signature of the warrant {} does not hold: it grants nothing",
                    one.signed.warrant.id
                ),
            ));
        }
        if one.signed.warrant.id != grant.id {
            narrowed_from.insert(0, one.signed.warrant.clone());
        }
        next = one.signed.warrant.parent;
    }
    let lapse = match found.revoked_at {
        Some(_) => Some(Lapse::Revoked),
        None if grant.expires_at <= context.clock.wall_ms() => Some(Lapse::Expired),
        None => None,
    };
    let issued = Issued {
        run: found.run,
        revoked_at: found.revoked_at,
        lapse,
        replaced_by: current.filter(|current| *current != grant.id),
    };
    let mut provenance = task.as_ref().map(|task| provenance_of(&task.spec)).unwrap_or_default();
    if let Some(task) = &task {
        // By the policies as they are now; what changed since shows as the repository's.
        let layers = crate::policies::layers(&mut read, &task.spec, context.clock.wall_ms()).await?;
        provenance.walls = layers.walls(task.spec.role);
    }
    provenance.narrowed_from = narrowed_from;
    Ok(Subject { warrant: grant, provenance, issued: Some(issued) })
}

fn chosen_hosts(task: &TaskSpec) -> Vec<HostChoice> {
    task.allow_hosts.iter().filter_map(|host| host.parse().ok()).collect()
}

fn provenance_of(task: &TaskSpec) -> Provenance {
    let chosen = match &task.agent {
        Some(agent) => Source::new(Origin::Agent, format!("--model, or the agent {agent}")),
        None => Source::new(Origin::Option, "--model"),
    };
    Provenance {
        agent: task.agent.clone(),
        role: None,
        hosts: chosen_hosts(task),
        protect: task.protect.clone(),
        model: task.model.clone().map(|model| (model, chosen)),
        narrowed_from: Vec::new(),
        walls: Walls::default(),
    }
}

/// The warrant that a run with these options would have.
async fn would_be(context: &Context, mut options: RunArgs) -> anyhow::Result<Subject> {
    // What the agent shall do changes nothing about what it may.
    if options.prompt.is_none() && options.cmd.is_empty() {
        if options.agent.is_some() || options.engine.is_some() {
            options.prompt = Some("…".to_owned());
        } else {
            options.cmd.push("true".to_owned());
        }
    }
    let task = super::run::would_be(&options, context).await?;
    let mut provenance = provenance_of(&task);
    provenance.role = Some(match (&options.role, &options.agent) {
        (Some(role), _) => Source::new(Origin::Option, format!("--role {role}")),
        (None, Some(agent)) => Source::new(Origin::Agent, format!("the agent {agent}")),
        (None, None) => Source::new(Origin::House, "the role where none is chosen"),
    });
    if let (Some((_, source)), Some(agent)) = (&mut provenance.model, &options.agent) {
        *source = match &options.model {
            Some(_) => Source::new(Origin::Option, "--model"),
            None => Source::new(Origin::Agent, format!("the agent {agent}")),
        };
    }
    let ids = (
        TaskId::new(context.clock.as_ref(), context.entropy.as_ref()),
        RunId::new(context.clock.as_ref(), context.entropy.as_ref()),
    );
    let models = crate::models::grants(context, &task).await?;
    let bound = crate::bound::read(&mut context.store.read(context.scope()).await?, &task.secrets).await?;
    let mut read = context.store.read(context.scope()).await?;
    let layers = crate::policies::layers(&mut read, &task, context.clock.wall_ms()).await?;
    drop(read);
    let walls = layers.walls(task.role);
    let laid_over = (models, &tipstaff_runner::PushRules::default(), &walls);
    let warrant = crate::begin::warrant_of(context, &task, &bound, ids, laid_over)?;
    provenance.walls = walls;
    Ok(Subject { warrant, provenance, issued: None })
}

/// An answer, with what the state of the warrant makes of it.
struct Told {
    yes: bool,
    answer: Answer,
    /// Why it is no although the warrant grants it.
    lapsed: Option<Rule>,
}

fn told(subject: &Subject, answer: Answer) -> Told {
    let lapsed = subject.issued.as_ref().and_then(|issued| issued.lapse).map(|lapse| match lapse {
        Lapse::Revoked => Rule::WarrantRevoked,
        Lapse::Expired => Rule::WarrantExpired,
    });
    Told { yes: answer.granted && lapsed.is_none(), answer, lapsed }
}

fn say(output: &Output, told: &Told) {
    let answer = &told.answer;
    let (tone, word) = if told.yes { (Tone::Good, "yes") } else { (Tone::Bad, "no ") };
    output.line(&format!("{}  {}", output.tone(tone, word), shown(&answer.question)));
    let line = |text: &str| output.line(&format!("     {text}"));
    match (&answer.refusal, told.lapsed) {
        (_, Some(rule)) => {
            let at_the_time =
                if answer.granted { "while it was in force: yes" } else { "and never was granted" };
            line(&format!("{rule}: the warrant is out of force; {at_the_time}"));
        }
        (Some(refusal), None) => line(&shown_long(&refusal.to_string())),
        (None, None) => {}
    }
    let by = match &answer.line {
        Some(grant) => format!("{}, by {}", shown(grant), answer.source.text),
        None => answer.source.text.clone(),
    };
    line(&format!("rule: {by}"));
    if let Some(note) = &answer.note {
        line(&format!("note: {}", shown_long(note)));
    }
    if let Some(next) = &answer.next {
        line(&format!("next: {next}"));
    }
}

/// A sentence that may hold what the person typed: harmless, but not cut.
fn shown_long(text: &str) -> String {
    tipstaff_seal::scrub::scrub_terminal(text.as_bytes(), tipstaff_seal::scrub::Colours::Remove)
}

fn object(subject: &Subject, explanation: &Explanation, answers: &[Told]) -> Value {
    let warrant = &subject.warrant;
    let issued = subject.issued.as_ref();
    let mut object = json!({
        "warrant": issued.map(|_| warrant.id),
        "run": issued.map(|one| one.run),
        "in_force": issued.map(|one| one.lapse.is_none() && one.replaced_by.is_none()),
        "revoked_at": issued.and_then(|one| one.revoked_at),
        "replaced_by": issued.and_then(|one| one.replaced_by),
        "expires_at": issued.map(|_| warrant.expires_at),
        "explanation": explanation,
    });
    if subject.issued.is_none()
        && let Some(read) = object.pointer_mut("/explanation/read/0/grant/base")
    {
        // The commit is pinned when a run begins.
        *read = Value::Null;
    }
    if let (false, Some(fields)) = (answers.is_empty(), object.as_object_mut()) {
        let answers: Vec<Value> = answers
            .iter()
            .map(|one| json!({ "can": one.yes, "lapsed": one.lapsed, "answer": one.answer }))
            .collect();
        fields.insert("answers".to_owned(), Value::Array(answers));
    }
    object
}

/// The whole page.
fn page(output: &Output, subject: &Subject, explanation: &Explanation) {
    let warrant = &subject.warrant;
    let head = |text: &str| output.line(&output.tone(Tone::Bold, text));
    match &subject.issued {
        Some(issued) => {
            head(&format!("Warrant {} of run {}", warrant.id, issued.run.short()));
            let state = match (issued.lapse, issued.replaced_by) {
                (Some(Lapse::Revoked), _) => {
                    let at = issued.revoked_at.map(time).unwrap_or_default();
                    format!("out of force since {at}: it grants nothing any more; this is what it granted")
                }
                (Some(Lapse::Expired), _) => format!(
                    "expired at {}: it grants nothing any more; this is what it granted",
                    time(warrant.expires_at)
                ),
                (None, Some(other)) => format!("narrowed since: warrant {other} is in its place"),
                (None, None) => format!("in force until {}", time(warrant.expires_at)),
            };
            output.line(&format!("  {state} (UTC)"));
        }
        None => head("A run with these options would have a warrant of this kind"),
    }
    let mut sheet = Sheet { output };
    sheet.row("role", &warrant.role.to_string(), &explanation.role.source);
    sheet.row("kind", &warrant.kind.to_string(), &explanation.kind.source);

    sheet.title("It reads");
    for line in &explanation.read {
        let base = match subject.issued {
            Some(_) => line.grant.base.short().to_owned(),
            None => "the commit that is pinned when it starts".to_owned(),
        };
        sheet.row("", &format!("{} at {base}", line.grant.name), &line.source);
    }
    for (name, bit) in [("submodules", &explanation.submodules), ("LFS files", &explanation.lfs)] {
        if bit.grant || bit.source.origin == Origin::Narrowing {
            sheet.row(name, if bit.grant { "checked out" } else { "not checked out" }, &bit.source);
        }
    }

    sheet.title("It executes");
    let exec = if explanation.exec.grant {
        "what the repository holds and what it makes"
    } else {
        "only installed programs, nothing of the repository"
    };
    sheet.row("", exec, &explanation.exec.source);

    sheet.title("It pushes");
    match &explanation.push.grant {
        Some(push) => {
            sheet.row("", &format!("{} of {}", push.reference, push.repository), &explanation.push.source);
            sheet.plain("fast-forward only, on top of the base; into quarantine, until a person applies it");
        }
        None => sheet.row("", "nothing", &explanation.push.source),
    }

    sheet.title("It writes");
    if explanation.workspace.grant {
        sheet.row("", "its disposable workspace, freely", &explanation.workspace.source);
    } else {
        sheet.row("", "nothing, not even its workspace", &explanation.workspace.source);
    }
    if explanation.push.grant.is_some() {
        sheet.plain("a push may change:");
        sheet.patterns(&explanation.write);
        sheet.plain("but never:");
        sheet.patterns(&explanation.protected);
        if subject.issued.is_none() {
            sheet.plain("  and what [push] and [policy] in tipstaff.toml of its base protect besides");
        }
        if !explanation.fixtures.is_empty() {
            sheet.plain("text that looks like a secret may stand in:");
            sheet.patterns(&explanation.fixtures);
        }
    }

    sheet.title("It reaches");
    if explanation.hosts.is_empty() {
        sheet.plain("no host");
    }
    for line in &explanation.hosts {
        sheet.row("", &line.grant.to_string(), &line.source);
    }
    for line in &explanation.rules {
        let rules = &line.grant;
        let inspected =
            if rules.inspect || !rules.requests.is_empty() { ", TLS ends in the broker" } else { "" };
        sheet.row("of", &format!("{}{inspected}", rules.host), &line.source);
        for request in &rules.requests {
            sheet.plain(&format!("  only {}", request_text(request)));
        }
    }
    for line in &explanation.secrets {
        let text =
            format!("{} at {}{}, which it never sees", line.grant.name, line.grant.host, line.grant.path);
        sheet.row("secret", &text, &line.source);
    }

    for line in &explanation.kept_out {
        sheet.row("never", &line.grant.to_string(), &line.source);
    }

    sheet.title("It asks");
    if explanation.models.is_empty() {
        sheet.plain("no model");
    }
    for line in &explanation.models {
        sheet.row("", &format!("{}/{}", line.grant.provider, line.grant.model), &line.source);
    }

    sheet.title("It spends");
    sheet.row("money", &format!("at most {}", explanation.budget.grant), &explanation.budget.source);
    for line in &explanation.bounds {
        sheet.row(line.grant.name, &amount(line.grant.name, line.grant.value), &line.source);
    }

    if !explanation.taken_away.is_empty() {
        sheet.title("It could, and can't any more");
        for one in &explanation.taken_away {
            let by = Source::new(Origin::Narrowing, format!("narrowed by warrant {}", one.by));
            sheet.row("", &one.what, &by);
        }
    }
    sheet.title("It never, like every warrant");
    for one in explanation.never {
        sheet.plain(one);
    }
}

/// A bound as people read it.
fn amount(name: &str, value: u64) -> String {
    if name.ends_with("_ms") {
        return span(value);
    }
    if name.ends_with("_bytes") && value.is_multiple_of(1 << 20) {
        return format!("{} MiB", value >> 20);
    }
    if name.ends_with("_percent") {
        return format!("{value} % of a core");
    }
    value.to_string()
}

fn request_text(rule: &RequestRule) -> String {
    let methods = if rule.methods.is_empty() { "any method".to_owned() } else { rule.methods.join(", ") };
    let tools =
        if rule.tools.is_empty() { String::new() } else { format!(", the tools {}", rule.tools.join(", ")) };
    format!("{methods} {}{tools}", rule.path)
}

/// Lines of a page: a name, what is granted, and dim behind it the rule that says so.
struct Sheet<'a> {
    output: &'a Output,
}

impl Sheet<'_> {
    fn title(&mut self, text: &str) {
        self.output.line("");
        self.output.line(&self.output.tone(Tone::Bold, text));
    }

    fn row(&mut self, name: &str, text: &str, source: &Source) {
        let text = shown_long(text);
        let left = if name.is_empty() { text } else { format!("{name:<22} {text}") };
        let source = self.output.tone(Tone::Dim, &format!("({})", source.text));
        self.output.line(&format!("  {left:<48} {source}"));
    }

    fn plain(&mut self, text: &str) {
        self.output.line(&format!("  {text}"));
    }

    /// Patterns, those of one rule together.
    fn patterns<T: std::fmt::Display>(&mut self, lines: &[Line<T>]) {
        let mut by_source: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for line in lines {
            by_source.entry(&line.source.text).or_default().push(shown_long(&line.grant.to_string()));
        }
        if by_source.is_empty() {
            self.plain("  nothing");
        }
        for (source, patterns) in by_source {
            let mut row = String::new();
            for (index, pattern) in patterns.iter().enumerate() {
                let comma = if index + 1 == patterns.len() { "" } else { ", " };
                if !row.is_empty() && row.chars().count() + pattern.chars().count() > WIDTH - 6 {
                    self.output.line(&format!("    {}", row.trim_end()));
                    row.clear();
                }
                row.push_str(pattern);
                row.push_str(comma);
            }
            let source = self.output.tone(Tone::Dim, &format!("({source})"));
            self.output.line(&format!("    {row} {source}"));
        }
    }
}
