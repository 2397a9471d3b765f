-- Policies of an org (project '') and of its projects, as they were written.

create table policy (
    org_id text collate "C" not null,
    project text collate "C" not null,
    body text collate "C" not null,
    set_by text collate "C" not null,
    set_at bigint not null,
    primary key (org_id, project),
    foreign key (org_id) references org (org_id)
);

-- The second wall, as in the ground.
alter table policy enable row level security;
alter table policy force row level security;
create policy org_scope on policy to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));

grant select, insert, update, delete on policy to tipstaff_app;
