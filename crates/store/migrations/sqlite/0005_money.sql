-- Money, completed: projects and persons as holders of budgets, what a budget does at which share of it.

create table project (
    org_id text not null,
    id text not null,
    name text not null,
    created_at integer not null,
    primary key (org_id, id),
    unique (org_id, name),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

-- A repository belongs to at most one project.
create table project_repository (
    org_id text not null,
    repository_id text not null,
    project_id text not null,
    assigned_at integer not null,
    primary key (org_id, repository_id),
    foreign key (org_id, repository_id) references repository (org_id, id),
    foreign key (org_id, project_id) references project (org_id, id)
) strict, without rowid;

create index project_repository_of_project on project_repository (org_id, project_id);

-- Who asked for it: a member's id.
alter table task add column person text;

-- Whose money it was: the project's name and the member's id, empty where there is none.
alter table charge add column project text not null default '';
alter table charge add column person text not null default '';

-- Calls under way, and when something was last reserved or settled, in milliseconds since the Unix epoch.
alter table charge_total add column calls_open integer not null default 0;
alter table charge_total add column changed_at integer not null default 0;

-- Shares in percent. `reached` is the largest share that was told in the period that began on day `reached_since`.
alter table budget add column notify text not null default '50,80,100';
alter table budget add column slow integer;
alter table budget add column stop integer default 100;
alter table budget add column reached integer not null default 0;
alter table budget add column reached_since integer not null default -1;
alter table budget add column stopped_since integer not null default -1;
