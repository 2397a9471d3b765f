-- What was pushed upstream. A row is there before the push; one without an end was interrupted.
create table publication (
    org_id text collate "C" not null,
    id text collate "C" not null,
    run_id text collate "C" not null,
    url text collate "C" not null,
    reference text collate "C" not null,
    commit_id text collate "C" not null,
    state text collate "C" not null,
    error text collate "C",
    begun_at bigint not null,
    ended_at bigint,
    primary key (org_id, id),
    foreign key (org_id, run_id) references run (org_id, id)
);

create index publication_of_run on publication (org_id, run_id, id);

-- The second wall, as in the ground.
alter table publication enable row level security;
alter table publication force row level security;
create policy org_scope on publication to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));

-- What was pushed stays on record.
grant select, insert on publication to tipstaff_app;
grant update (state, error, ended_at) on publication to tipstaff_app;
