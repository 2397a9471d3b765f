-- What was pushed upstream. A row is there before the push; one without an end was interrupted.
create table publication (
    org_id text not null,
    id text not null,
    run_id text not null,
    url text not null,
    reference text not null,
    commit_id text not null,
    state text not null,
    error text,
    begun_at integer not null,
    ended_at integer,
    primary key (org_id, id),
    foreign key (org_id, run_id) references run (org_id, id)
) strict, without rowid;

create index publication_of_run on publication (org_id, run_id, id);
