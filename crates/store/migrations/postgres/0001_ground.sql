-- The ground: people, work, evidence. Every tenant table has org_id first in its primary key.
create table org (
    org_id text collate "C" not null check (length(org_id) = 36),
    name text collate "C" not null,
    kind text collate "C" not null,
    created_at bigint not null,
    primary key (org_id)
);

create table member (
    org_id text collate "C" not null,
    id text collate "C" not null,
    name text collate "C" not null,
    role text collate "C" not null,
    created_at bigint not null,
    primary key (org_id, id),
    foreign key (org_id) references org (org_id)
);

-- System table: which org and member a person at this machine is. `principal` is a digest.
create table local_identity (
    principal text collate "C" not null,
    org_id text collate "C" not null,
    member_id text collate "C" not null,
    created_at bigint not null,
    primary key (principal)
);

create table repository (
    org_id text collate "C" not null,
    id text collate "C" not null,
    name text collate "C" not null,
    kind text collate "C" not null,
    source text collate "C" not null,
    created_at bigint not null,
    updated_at bigint not null,
    primary key (org_id, id),
    unique (org_id, name),
    foreign key (org_id) references org (org_id)
);

create table agent (
    org_id text collate "C" not null,
    id text collate "C" not null,
    name text collate "C" not null,
    role text collate "C" not null,
    engine text collate "C" not null,
    model text collate "C",
    instructions text collate "C" not null,
    options text collate "C" not null,
    created_at bigint not null,
    updated_at bigint not null,
    primary key (org_id, id),
    unique (org_id, name),
    foreign key (org_id) references org (org_id)
);

create table task (
    org_id text collate "C" not null,
    id text collate "C" not null,
    repository_id text collate "C",
    kind text collate "C" not null,
    state text collate "C" not null,
    spec text collate "C" not null,
    dedup_key text collate "C",
    attempt bigint not null default 0,
    max_attempts bigint not null,
    lease_owner text collate "C",
    lease_until bigint,
    generation bigint not null default 0,
    run_at bigint not null,
    last_error text collate "C",
    cancel_requested bigint not null default 0,
    created_at bigint not null,
    updated_at bigint not null,
    primary key (org_id, id),
    unique (org_id, dedup_key),
    foreign key (org_id) references org (org_id),
    foreign key (org_id, repository_id) references repository (org_id, id)
);

-- The scheduler's two questions, across orgs: what is ready, and whose lease is over.
create index task_ready on task (run_at, id) where state = 'queued';
create index task_leased on task (lease_until) where lease_until is not null;

create table run (
    org_id text collate "C" not null,
    id text collate "C" not null,
    task_id text collate "C" not null,
    attempt bigint not null,
    warrant_id text collate "C",
    state text collate "C" not null,
    exit_reason text collate "C",
    exit_code bigint,
    branch text collate "C",
    base_commit text collate "C",
    commit_id text collate "C",
    files_changed bigint not null default 0,
    additions bigint not null default 0,
    deletions bigint not null default 0,
    cost_micro_usd bigint not null default 0,
    tokens bigint not null default 0,
    started_at bigint not null,
    ended_at bigint,
    error text collate "C",
    workspace text collate "C",
    decision text collate "C",
    host text collate "C" not null,
    primary key (org_id, id),
    unique (org_id, task_id, attempt),
    foreign key (org_id, task_id) references task (org_id, id)
);

-- People type the last eight digits of an id.
create index run_short on run (org_id, substr(id, 29));
create index run_open on run (org_id, started_at) where ended_at is null;

create table warrant (
    org_id text collate "C" not null,
    id text collate "C" not null,
    run_id text collate "C" not null,
    parent_id text collate "C",
    body text collate "C" not null,
    signature bytea not null,
    key_id text collate "C" not null,
    digest text collate "C" not null,
    issued_at bigint not null,
    expires_at bigint not null,
    revoked_at bigint,
    primary key (org_id, id),
    foreign key (org_id, run_id) references run (org_id, id),
    foreign key (org_id, parent_id) references warrant (org_id, id)
);

create index warrant_of_run on warrant (org_id, run_id);

-- No foreign key: the fenced write has the run's row in hand already.
create table event (
    org_id text collate "C" not null,
    run_id text collate "C" not null,
    seq bigint not null,
    at bigint not null,
    kind text collate "C" not null,
    body text collate "C" not null,
    primary key (org_id, run_id, seq)
);

create table refusal (
    org_id text collate "C" not null,
    id text collate "C" not null,
    run_id text collate "C" not null,
    rule text collate "C" not null,
    wanted text collate "C" not null,
    why text collate "C" not null,
    at bigint not null,
    primary key (org_id, id),
    foreign key (org_id, run_id) references run (org_id, id)
);

create index refusal_of_run on refusal (org_id, run_id, id);

create table ring_key (
    org_id text collate "C" not null,
    id text collate "C" not null,
    generation bigint not null,
    wrapped text collate "C" not null,
    created_at bigint not null,
    retired_at bigint,
    primary key (org_id, id),
    unique (org_id, generation),
    foreign key (org_id) references org (org_id)
);

create table secret (
    org_id text collate "C" not null,
    id text collate "C" not null,
    name text collate "C" not null,
    ring_key_id text collate "C" not null,
    sealed text collate "C" not null,
    created_at bigint not null,
    updated_at bigint not null,
    primary key (org_id, id),
    unique (org_id, name),
    foreign key (org_id, ring_key_id) references ring_key (org_id, id)
);

create index secret_of_ring_key on secret (org_id, ring_key_id);

create table signing_key (
    org_id text collate "C" not null,
    id text collate "C" not null,
    purpose text collate "C" not null,
    public bytea not null,
    ring_key_id text collate "C" not null,
    sealed text collate "C" not null,
    created_at bigint not null,
    retired_at bigint,
    primary key (org_id, id),
    foreign key (org_id, ring_key_id) references ring_key (org_id, id)
);

create index signing_key_of_ring_key on signing_key (org_id, ring_key_id);

create table audit_record (
    org_id text collate "C" not null,
    seq bigint not null,
    at bigint not null,
    action text collate "C" not null,
    body bytea,
    salt bytea,
    commitment bytea,
    leaf_hash bytea not null,
    erased_at bigint,
    primary key (org_id, seq),
    -- A record has its text and salt, or, once erased, the commitment to them.
    check ((body is null) = (salt is null) and (body is null) <> (commitment is null))
);

create table audit_head (
    org_id text collate "C" not null,
    size bigint not null,
    frontier bytea not null,
    updated_at bigint not null,
    primary key (org_id),
    foreign key (org_id) references org (org_id)
);

create table audit_checkpoint (
    org_id text collate "C" not null,
    size bigint not null,
    note text collate "C" not null,
    created_at bigint not null,
    primary key (org_id, size)
);

create table outbox (
    org_id text collate "C" not null,
    id text collate "C" not null,
    kind text collate "C" not null,
    body text collate "C" not null,
    created_at bigint not null,
    sent_at bigint,
    primary key (org_id, id),
    foreign key (org_id) references org (org_id)
);

create index outbox_unsent on outbox (org_id, id) where sent_at is null;

-- The second wall: row-level security, forced, so that it holds for the owner too. Policies compare with the setting
-- directly: a sub-query in a policy costs hundreds of times more. Without the setting nothing is visible.
alter table org enable row level security;
alter table org force row level security;
create policy org_scope on org to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table member enable row level security;
alter table member force row level security;
create policy org_scope on member to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table repository enable row level security;
alter table repository force row level security;
create policy org_scope on repository to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table agent enable row level security;
alter table agent force row level security;
create policy org_scope on agent to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table task enable row level security;
alter table task force row level security;
create policy org_scope on task to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table run enable row level security;
alter table run force row level security;
create policy org_scope on run to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table warrant enable row level security;
alter table warrant force row level security;
create policy org_scope on warrant to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table event enable row level security;
alter table event force row level security;
create policy org_scope on event to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table refusal enable row level security;
alter table refusal force row level security;
create policy org_scope on refusal to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table ring_key enable row level security;
alter table ring_key force row level security;
create policy org_scope on ring_key to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table secret enable row level security;
alter table secret force row level security;
create policy org_scope on secret to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table signing_key enable row level security;
alter table signing_key force row level security;
create policy org_scope on signing_key to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table audit_record enable row level security;
alter table audit_record force row level security;
create policy org_scope on audit_record to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table audit_head enable row level security;
alter table audit_head force row level security;
create policy org_scope on audit_head to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table audit_checkpoint enable row level security;
alter table audit_checkpoint force row level security;
create policy org_scope on audit_checkpoint to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table outbox enable row level security;
alter table outbox force row level security;
create policy org_scope on outbox to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table local_identity enable row level security;
alter table local_identity force row level security;
create policy principal_scope on local_identity to tipstaff_app
    using (principal = current_setting('app.principal', true))
    with check (principal = current_setting('app.principal', true));

-- What the app may do, table by table. The audit log is append-only except for the erasure of a record's text.
grant select, insert on org, member, local_identity to tipstaff_app;
grant select, insert, update, delete on repository, agent, task, run, secret, outbox to tipstaff_app;
grant select, insert, update on ring_key, signing_key, audit_head to tipstaff_app;
grant select, insert on warrant, event, refusal, audit_record, audit_checkpoint to tipstaff_app;
grant update (revoked_at) on warrant to tipstaff_app;
grant update (body, salt, commitment, erased_at) on audit_record to tipstaff_app;

-- The scheduler claims across orgs and sees ids, states and times of tasks: no text, no other table.
create policy scheduler on task to tipstaff_scheduler using (true) with check (true);
grant select (org_id, id, kind, state, attempt, max_attempts, lease_owner, lease_until, generation, run_at, cancel_requested)
    on task to tipstaff_scheduler;
grant update (state, attempt, lease_owner, lease_until, generation, run_at, updated_at)
    on task to tipstaff_scheduler;
