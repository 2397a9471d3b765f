-- Questions to a person with their answers, and what a person told a run.

create table approval (
    org_id text not null,
    id text not null,
    run_id text not null,
    warrant_id text not null,
    digest text not null,
    action text not null,
    risk text not null,
    because text not null,
    asked_at integer not null,
    expires_at integer not null,
    state text not null,
    answer text,
    answered_by text,
    answered_at integer,
    -- 1: the answer reaches further than its own question.
    standing integer not null default 0,
    primary key (org_id, id),
    foreign key (org_id, run_id) references run (org_id, id)
) strict, without rowid;

create index approval_of_run on approval (org_id, run_id, id);
create index approval_standing on approval (org_id, run_id, standing, id);
create index approval_in_state on approval (org_id, state, id);

-- Words of a person are kept as they were typed until the worker took them, and redacted from then on.
create table steering (
    org_id text not null,
    id text not null,
    run_id text not null,
    seq integer not null,
    kind text not null,
    said_by text not null,
    said_at integer not null,
    state text not null,
    note text,
    taken_at integer,
    primary key (org_id, id),
    unique (org_id, run_id, seq),
    foreign key (org_id, run_id) references run (org_id, id)
) strict, without rowid;

create index steering_in_state on steering (org_id, run_id, state, seq);
