-- How long what sessions said is kept, by privacy class; a class without a row for ever.
create table retention (
    org_id text collate "C" not null,
    class text collate "C" not null,
    term_ms bigint not null check (term_ms > 0),
    updated_at bigint not null,
    primary key (org_id, class),
    foreign key (org_id) references org (org_id)
);

-- When an org's sessions were swept last.
create table retention_sweep (
    org_id text collate "C" not null,
    swept_at bigint not null,
    primary key (org_id),
    foreign key (org_id) references org (org_id)
);

-- When the texts of a run were erased.
alter table run add column swept_at bigint;
create index run_unswept on run (org_id, id) where swept_at is null;

-- The second wall, as in the ground.
alter table retention enable row level security;
alter table retention force row level security;
create policy org_scope on retention to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table retention_sweep enable row level security;
alter table retention_sweep force row level security;
create policy org_scope on retention_sweep to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));

grant select, insert, update, delete on retention, retention_sweep to tipstaff_app;
-- A sweep erases what was said; the rows stay, and that it was done is in the audit log.
grant update (body) on event to tipstaff_app;
grant update (wanted, why) on refusal to tipstaff_app;
grant update (action, because) on approval to tipstaff_app;
