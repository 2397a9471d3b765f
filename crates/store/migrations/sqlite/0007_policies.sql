-- Policies of an org (project '') and of its projects, as they were written.

create table policy (
    org_id text not null,
    project text not null,
    body text not null,
    set_by text not null,
    set_at integer not null,
    primary key (org_id, project),
    foreign key (org_id) references org (org_id)
) strict, without rowid;
