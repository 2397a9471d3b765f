-- Which models may be asked, and who serves them; of the org (no project), or of a project of it.

create table model_rule (
    org_id text collate "C" not null,
    project text collate "C" not null,
    pattern text collate "C" not null,
    effect text collate "C" not null,
    updated_at bigint not null,
    primary key (org_id, project, pattern),
    foreign key (org_id) references org (org_id)
);

create table model_route (
    org_id text collate "C" not null,
    project text collate "C" not null,
    pattern text collate "C" not null,
    hops text collate "C" not null,
    updated_at bigint not null,
    primary key (org_id, project, pattern),
    foreign key (org_id) references org (org_id)
);

-- The second wall, as in the ground.
alter table model_rule enable row level security;
alter table model_rule force row level security;
create policy org_scope on model_rule to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table model_route enable row level security;
alter table model_route force row level security;
create policy org_scope on model_route to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));

grant select, insert, update, delete on model_rule, model_route to tipstaff_app;
