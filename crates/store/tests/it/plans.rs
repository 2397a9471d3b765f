//! The plans of the hot queries, on both engines, with enough rows that a bad plan would show.

use crate::support::{World, server, sqlite_raw, story};
use tipstaff_store::Engine;
use tipstaff_store::sql::{Statement, StatementKind, all};

/// Statements that people and workers wait for, and how many placeholders they have.
const HOT: [(&str, usize); 66] = [
    ("AGENT_GET", 2),
    ("APPROVAL_COUNT", 2),
    ("APPROVAL_DECIDE", 7),
    ("APPROVAL_GET", 2),
    ("APPROVAL_LIST", 3),
    ("APPROVAL_LIST_IN_STATE", 4),
    ("APPROVAL_LIST_OF_RUN", 5),
    ("APPROVAL_LIST_OPEN", 3),
    ("APPROVAL_LIST_OVERDUE", 4),
    ("APPROVAL_LIST_STANDING", 3),
    ("APPROVAL_USE", 5),
    ("LEASE_LOOK", 4),
    ("STEERING_LAST", 2),
    ("STEERING_WAITING", 2),
    ("STORY_LOCK", 3),
    ("WARRANT_IN_FORCE", 3),
    ("AUDIT_CHECKPOINT_AT", 2),
    ("BUDGET_BINDING", 7),
    ("BUDGET_LIST", 1),
    ("BUDGET_LIST_OF", 3),
    ("BUDGET_REACHED", 4),
    ("BUDGET_STOPPED", 3),
    ("CHARGE_GET", 2),
    ("CHARGE_LIST_OF_RUN", 2),
    ("CHARGE_LIST_OPEN_OF_RUN", 2),
    ("CHARGE_OF_RUN", 2),
    ("CHARGE_SETTLE", 18),
    ("CHARGE_SHRINK", 4),
    ("CHARGE_TOTAL", 5),
    ("AUDIT_CHECKPOINT_LAST", 1),
    ("AUDIT_HEAD_TAKE", 2),
    ("AUDIT_RECORDS_FROM", 3),
    ("AUDIT_RECORDS_NEWEST", 3),
    ("AUDIT_RECORD_GET", 2),
    ("EVENT_LAST", 2),
    ("EVENT_LIST", 4),
    ("LEASE_GUARD", 5),
    ("LEASE_RENEW", 6),
    ("OUTBOX_UNSENT", 2),
    ("REFUSAL_LIST", 2),
    ("PROJECT_GET", 2),
    ("PROJECT_OF_REPOSITORY", 2),
    ("PROJECT_REPOSITORIES", 2),
    ("REPOSITORY_BY_NAME", 2),
    ("PUBLICATION_LIST_OF_RUN", 2),
    ("RUN_CHARGE", 4),
    ("RUN_FIND", 2),
    ("RUN_GET", 2),
    ("RUN_LIST", 3),
    ("RUN_LIST_OF_TASK", 2),
    ("RUN_LIST_OPEN", 1),
    ("RUN_LIST_RESUMING", 2),
    ("RUN_OF_ATTEMPT", 3),
    ("RUN_SET", 13),
    ("SECRET_GET", 2),
    ("TASK_BY_DEDUP", 2),
    ("TASK_CANCEL", 3),
    ("TASK_CLAIM_ONE", 5),
    ("TASK_CLAIM_POSTGRES", 4),
    ("TASK_CLAIM_SQLITE", 4),
    ("TASK_GET", 2),
    ("TASK_MOVE", 13),
    ("TASK_END_MANY", 12),
    ("AUDIT_HEAD_ADVANCE", 6),
    ("WARRANT_GET", 2),
    ("WARRANT_LIST_OF_RUN", 2),
];

fn hot(engine: Engine) -> Vec<(Statement, usize)> {
    let all = all();
    HOT.iter()
        .map(|(name, count)| {
            let statement = all.iter().find(|statement| statement.name == *name);
            (*statement.unwrap_or_else(|| panic!("{name} is not registered")), *count)
        })
        .filter(|(statement, _)| statement.engine.is_none_or(|only| only == engine))
        .collect()
}

/// Twenty orgs with 500 tasks, runs and so on each, by raw statements.
fn fill(world: &World) {
    let org = world.me.scope.org();
    let (series, id, blob) = match world.engine {
        Engine::Sqlite => (
            "(with recursive s(n) as (select 1 union all select n + 1 from s where n < 10000) select n from s) s",
            "printf('00000000-0000-7000-8000-%012d', n)",
            "x'00'",
        ),
        Engine::Postgres => (
            "generate_series(1, 10000) s(n)",
            "'00000000-0000-7000-8000-' || lpad(n::text, 12, '0')",
            "'\\x00'::bytea",
        ),
    };
    let which = match world.engine {
        Engine::Sqlite => format!("case when n % 20 = 0 then '{org}' else printf('org-%032d', n % 20) end"),
        Engine::Postgres => {
            format!("case when n % 20 = 0 then '{org}' else 'org-' || lpad((n % 20)::text, 32, '0') end")
        }
    };
    let orgs = match world.engine {
        Engine::Sqlite => "printf('org-%032d', n % 20)",
        Engine::Postgres => "'org-' || lpad((n % 20)::text, 32, '0')",
    };
    let text = format!(
        "insert into org select {orgs}, 'n', 'team', 1 from {series} where n < 20;
         insert into audit_head select {orgs}, 0, {blob}, 1 from {series} where n < 20;
         insert into task (org_id, id, kind, state, spec, max_attempts, run_at, created_at, updated_at, dedup_key) \
           select {which}, {id}, 'run', case when n % 3 = 0 then 'done' else 'queued' end, '{{}}', 1, n, 1, 1, {id} from {series};
         insert into run (org_id, id, task_id, attempt, state, started_at, ended_at, host) \
           select {which}, {id}, {id}, 1, 'done', n, case when n % 50 = 0 then null else n end, 'h' from {series};
         insert into event select {which}, {id}, 1, 1, 'stdout', '{{}}' from {series};
         insert into refusal select {which}, {id}, {id}, 'r', 'w', 'y', 1 from {series};
         insert into warrant (org_id, id, run_id, body, signature, key_id, digest, issued_at, expires_at) \
           select {which}, {id}, {id}, '{{}}', {blob}, 'k', 'd', 1, 1 from {series};
         insert into outbox (org_id, id, kind, body, created_at, sent_at) \
           select {which}, {id}, 'k', '{{}}', 1, case when n % 100 = 0 then null else 1 end from {series};
         insert into repository select {which}, {id}, {id}, 'local', 's', 1, 1 from {series};
         insert into agent select {which}, {id}, {id}, 'r', 'e', null, 'i', '{{}}', 1, 1 from {series};
         insert into project select {which}, {id}, {id}, 1 from {series};
         insert into project_repository select {which}, {id}, {id}, 1 from {series};
         insert into charge (org_id, id, run_id, agent, provider, model, day, state, reserved, reserved_at) \
           select {which}, {id}, {id}, 'a', 'p', 'm', n % 60, 'settled', 1, 1 from {series};
         insert into charge_total select {which}, 'run', {id}, 0, 1, 1, 0, 1 from {series};
         insert into charge_total select {which}, 'agent', 'a', n, 1, 1, 0, 1 from {series};
         insert into budget (org_id, id, scope, name, period, amount, created_at, updated_at) \
           select {which}, {id}, 'agent', {id}, 'day', 1, 1, 1 from {series};
         insert into approval (org_id, id, run_id, warrant_id, digest, action, risk, because, asked_at, expires_at, state) \
           select {which}, {id}, {id}, {id}, 'd', '{{}}', 'low', '[]', 1, 1, case when n % 50 = 0 then 'pending' else 'used' end from {series};
         insert into steering (org_id, id, run_id, seq, kind, said_by, said_at, state) \
           select {which}, {id}, {id}, 1, '{{}}', 'm', 1, 'taken' from {series};
         insert into audit_record (org_id, seq, at, action, body, salt, leaf_hash) \
           select {which}, n + 10, 1, 'a', {blob}, {blob}, {blob} from {series};
         insert into audit_checkpoint select {which}, n + 10, 'note', 1 from {series};"
    );
    world.vandal(&text);
    world.vandal("analyze");
}

story! {
    async fn hot_queries_use_an_index(world: World) {
        fill(&world);
        for (statement, count) in hot(world.engine) {
            match world.engine {
                Engine::Sqlite => {
                    let plan = sqlite_raw(&world.file, &format!("explain query plan {}", statement.text));
                    let scans = plan.lines().filter(|line| line.contains("SCAN") && !line.contains("SCAN picked")
                        && !line.contains("SCAN CONSTANT ROW") && !line.contains("VALUES CLAUSE"));
                    // A partial index that is walked in its own order is what the scheduler wants.
                    let bad: Vec<_> = scans.filter(|line| !line.contains("USING INDEX task_ready")
                        && !line.contains("USING COVERING INDEX task_ready")).collect();
                    assert!(bad.is_empty(), "{}:\n{plan}", statement.name);
                }
                Engine::Postgres => postgres_plan(&world, statement, count),
            }
        }
    }
}

/// With row-level security in force, as the role that runs the statement.
fn postgres_plan(world: &World, statement: Statement, count: usize) {
    let role = if statement.kind == StatementKind::Scheduler { "tipstaff_scheduler" } else { "tipstaff_app" };
    let org = world.me.scope.org();
    let mut arguments: Vec<String> = (1..=count).map(|_| "null".to_owned()).collect();
    if statement.kind == StatementKind::Scoped {
        arguments[0] = format!("'{org}'");
        if count > 1 {
            // Text or number: the server takes either from a quoted digit.
            arguments[1] = "'1'".to_owned();
        }
    } else {
        arguments = ["'w'", "'1'", "'1'", "'10'"].map(str::to_owned).to_vec();
    }
    let text = format!(
        "begin; select set_config('app.org_id', '{org}', true); set local plan_cache_mode = force_generic_plan; set local enable_seqscan = off; \
         prepare one as {}; explain execute one({}); rollback",
        statement.text,
        arguments.join(", ")
    );
    let plan = server().sql_as(role, &world.database, &text).unwrap();
    assert!(!plan.contains("Seq Scan"), "{}:\n{plan}", statement.name);
    // The policy is a comparison with a setting, not a sub-query, and it is served by the index as well.
    assert!(!plan.contains("SubPlan") || statement.text.contains("(select"), "{}:\n{plan}", statement.name);
    if statement.kind == StatementKind::Scoped {
        assert!(
            plan.contains("Index Cond: ((org_id = ") || plan.contains("Index Cond: (org_id = "),
            "{}:\n{plan}",
            statement.name
        );
    }
}
