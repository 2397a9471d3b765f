-- Which models may be asked, and who serves them; of the org (no project), or of a project of it.

create table model_rule (
    org_id text not null,
    project text not null,
    pattern text not null,
    effect text not null,
    updated_at integer not null,
    primary key (org_id, project, pattern),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

create table model_route (
    org_id text not null,
    project text not null,
    pattern text not null,
    hops text not null,
    updated_at integer not null,
    primary key (org_id, project, pattern),
    foreign key (org_id) references org (org_id)
) strict, without rowid;
