-- Questions to a person with their answers, and what a person told a run.

create table approval (
    org_id text collate "C" not null,
    id text collate "C" not null,
    run_id text collate "C" not null,
    warrant_id text collate "C" not null,
    digest text collate "C" not null,
    action text collate "C" not null,
    risk text collate "C" not null,
    because text collate "C" not null,
    asked_at bigint not null,
    expires_at bigint not null,
    state text collate "C" not null,
    answer text collate "C",
    answered_by text collate "C",
    answered_at bigint,
    -- 1: the answer reaches further than its own question.
    standing bigint not null default 0,
    primary key (org_id, id),
    foreign key (org_id, run_id) references run (org_id, id)
);

create index approval_of_run on approval (org_id, run_id, id);
create index approval_standing on approval (org_id, run_id, standing, id);
create index approval_in_state on approval (org_id, state, id);

-- Words of a person are kept as they were typed until the worker took them, and redacted from then on.
create table steering (
    org_id text collate "C" not null,
    id text collate "C" not null,
    run_id text collate "C" not null,
    seq bigint not null,
    kind text collate "C" not null,
    said_by text collate "C" not null,
    said_at bigint not null,
    state text collate "C" not null,
    note text collate "C",
    taken_at bigint,
    primary key (org_id, id),
    unique (org_id, run_id, seq),
    foreign key (org_id, run_id) references run (org_id, id)
);

create index steering_in_state on steering (org_id, run_id, state, seq);

-- The second wall, as in the ground.
alter table approval enable row level security;
alter table approval force row level security;
create policy org_scope on approval to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table steering enable row level security;
alter table steering force row level security;
create policy org_scope on steering to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));

-- What was asked and said stays on record; what an answer is bound to never changes.
grant select, insert on approval, steering to tipstaff_app;
grant update (state, answer, answered_by, answered_at, standing) on approval to tipstaff_app;
grant update (kind, state, note, taken_at) on steering to tipstaff_app;
