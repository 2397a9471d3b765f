-- Money, completed: projects and persons as holders of budgets, what a budget does at which share of it.

create table project (
    org_id text collate "C" not null,
    id text collate "C" not null,
    name text collate "C" not null,
    created_at bigint not null,
    primary key (org_id, id),
    unique (org_id, name),
    foreign key (org_id) references org (org_id)
);

-- A repository belongs to at most one project.
create table project_repository (
    org_id text collate "C" not null,
    repository_id text collate "C" not null,
    project_id text collate "C" not null,
    assigned_at bigint not null,
    primary key (org_id, repository_id),
    foreign key (org_id, repository_id) references repository (org_id, id),
    foreign key (org_id, project_id) references project (org_id, id)
);

create index project_repository_of_project on project_repository (org_id, project_id);

-- Who asked for it: a member's id.
alter table task add column person text collate "C";

-- Whose money it was: the project's name and the member's id, empty where there is none.
alter table charge add column project text collate "C" not null default '';
alter table charge add column person text collate "C" not null default '';

-- Calls under way, and when something was last reserved or settled, in milliseconds since the Unix epoch.
alter table charge_total add column calls_open bigint not null default 0;
alter table charge_total add column changed_at bigint not null default 0;

-- Shares in percent. `reached` is the largest share that was told in the period that began on day `reached_since`.
alter table budget add column notify text collate "C" not null default '50,80,100';
alter table budget add column slow bigint;
alter table budget add column stop bigint default 100;
alter table budget add column reached bigint not null default 0;
alter table budget add column reached_since bigint not null default -1;
alter table budget add column stopped_since bigint not null default -1;

-- The second wall, as in the ground.
alter table project enable row level security;
alter table project force row level security;
create policy org_scope on project to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table project_repository enable row level security;
alter table project_repository force row level security;
create policy org_scope on project_repository to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));

grant select, insert, update, delete on project, project_repository to tipstaff_app;
