-- The ground: people, work, evidence. Every tenant table has org_id first in its primary key.
create table org (
    org_id text not null check (length(org_id) = 36),
    name text not null,
    kind text not null,
    created_at integer not null,
    primary key (org_id)
) strict, without rowid;

create table member (
    org_id text not null,
    id text not null,
    name text not null,
    role text not null,
    created_at integer not null,
    primary key (org_id, id),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

-- System table: which org and member a person at this machine is. `principal` is a digest.
create table local_identity (
    principal text not null,
    org_id text not null,
    member_id text not null,
    created_at integer not null,
    primary key (principal)
) strict, without rowid;

create table repository (
    org_id text not null,
    id text not null,
    name text not null,
    kind text not null,
    source text not null,
    created_at integer not null,
    updated_at integer not null,
    primary key (org_id, id),
    unique (org_id, name),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

create table agent (
    org_id text not null,
    id text not null,
    name text not null,
    role text not null,
    engine text not null,
    model text,
    instructions text not null,
    options text not null,
    created_at integer not null,
    updated_at integer not null,
    primary key (org_id, id),
    unique (org_id, name),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

create table task (
    org_id text not null,
    id text not null,
    repository_id text,
    kind text not null,
    state text not null,
    spec text not null,
    dedup_key text,
    attempt integer not null default 0,
    max_attempts integer not null,
    lease_owner text,
    lease_until integer,
    generation integer not null default 0,
    run_at integer not null,
    last_error text,
    cancel_requested integer not null default 0,
    created_at integer not null,
    updated_at integer not null,
    primary key (org_id, id),
    unique (org_id, dedup_key),
    foreign key (org_id) references org (org_id),
    foreign key (org_id, repository_id) references repository (org_id, id)
) strict, without rowid;

-- The scheduler's two questions, across orgs: what is ready, and whose lease is over.
create index task_ready on task (run_at, id) where state = 'queued';
create index task_leased on task (lease_until) where lease_until is not null;

create table run (
    org_id text not null,
    id text not null,
    task_id text not null,
    attempt integer not null,
    warrant_id text,
    state text not null,
    exit_reason text,
    exit_code integer,
    branch text,
    base_commit text,
    commit_id text,
    files_changed integer not null default 0,
    additions integer not null default 0,
    deletions integer not null default 0,
    cost_micro_usd integer not null default 0,
    tokens integer not null default 0,
    started_at integer not null,
    ended_at integer,
    error text,
    workspace text,
    decision text,
    host text not null,
    primary key (org_id, id),
    unique (org_id, task_id, attempt),
    foreign key (org_id, task_id) references task (org_id, id)
) strict, without rowid;

-- People type the last eight digits of an id.
create index run_short on run (org_id, substr(id, 29));
create index run_open on run (org_id, started_at) where ended_at is null;

create table warrant (
    org_id text not null,
    id text not null,
    run_id text not null,
    parent_id text,
    body text not null,
    signature blob not null,
    key_id text not null,
    digest text not null,
    issued_at integer not null,
    expires_at integer not null,
    revoked_at integer,
    primary key (org_id, id),
    foreign key (org_id, run_id) references run (org_id, id),
    foreign key (org_id, parent_id) references warrant (org_id, id)
) strict, without rowid;

create index warrant_of_run on warrant (org_id, run_id);

-- No foreign key: the fenced write has the run's row in hand already.
create table event (
    org_id text not null,
    run_id text not null,
    seq integer not null,
    at integer not null,
    kind text not null,
    body text not null,
    primary key (org_id, run_id, seq)
) strict, without rowid;

create table refusal (
    org_id text not null,
    id text not null,
    run_id text not null,
    rule text not null,
    wanted text not null,
    why text not null,
    at integer not null,
    primary key (org_id, id),
    foreign key (org_id, run_id) references run (org_id, id)
) strict, without rowid;

create index refusal_of_run on refusal (org_id, run_id, id);

create table ring_key (
    org_id text not null,
    id text not null,
    generation integer not null,
    wrapped text not null,
    created_at integer not null,
    retired_at integer,
    primary key (org_id, id),
    unique (org_id, generation),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

create table secret (
    org_id text not null,
    id text not null,
    name text not null,
    ring_key_id text not null,
    sealed text not null,
    created_at integer not null,
    updated_at integer not null,
    primary key (org_id, id),
    unique (org_id, name),
    foreign key (org_id, ring_key_id) references ring_key (org_id, id)
) strict, without rowid;

create index secret_of_ring_key on secret (org_id, ring_key_id);

create table signing_key (
    org_id text not null,
    id text not null,
    purpose text not null,
    public blob not null,
    ring_key_id text not null,
    sealed text not null,
    created_at integer not null,
    retired_at integer,
    primary key (org_id, id),
    foreign key (org_id, ring_key_id) references ring_key (org_id, id)
) strict, without rowid;

create index signing_key_of_ring_key on signing_key (org_id, ring_key_id);

create table audit_record (
    org_id text not null,
    seq integer not null,
    at integer not null,
    action text not null,
    body blob,
    salt blob,
    commitment blob,
    leaf_hash blob not null,
    erased_at integer,
    primary key (org_id, seq),
    -- A record has its text and salt, or, once erased, the commitment to them.
    check ((body is null) = (salt is null) and (body is null) <> (commitment is null))
) strict, without rowid;

create table audit_head (
    org_id text not null,
    size integer not null,
    frontier blob not null,
    updated_at integer not null,
    primary key (org_id),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

create table audit_checkpoint (
    org_id text not null,
    size integer not null,
    note text not null,
    created_at integer not null,
    primary key (org_id, size)
) strict, without rowid;

create table outbox (
    org_id text not null,
    id text not null,
    kind text not null,
    body text not null,
    created_at integer not null,
    sent_at integer,
    primary key (org_id, id),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

create index outbox_unsent on outbox (org_id, id) where sent_at is null;
