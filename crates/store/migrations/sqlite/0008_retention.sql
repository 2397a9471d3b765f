-- How long what sessions said is kept, by privacy class; a class without a row for ever.
create table retention (
    org_id text not null,
    class text not null,
    term_ms integer not null check (term_ms > 0),
    updated_at integer not null,
    primary key (org_id, class),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

-- When an org's sessions were swept last.
create table retention_sweep (
    org_id text not null,
    swept_at integer not null,
    primary key (org_id),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

-- When the texts of a run were erased.
alter table run add column swept_at integer;
create index run_unswept on run (org_id, id) where swept_at is null;
