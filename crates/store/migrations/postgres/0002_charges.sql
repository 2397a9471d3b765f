-- Money: the ledger of model calls, running totals, budgets, prices.

-- One row a call. It is reserved before the call and settled after it; presumed when its run ended in between.
create table charge (
    org_id text collate "C" not null,
    id text collate "C" not null,
    run_id text collate "C" not null,
    agent text collate "C" not null,
    provider text collate "C" not null,
    model text collate "C" not null,
    day bigint not null,
    state text collate "C" not null,
    reserved bigint not null,
    cost bigint not null default 0,
    input_tokens bigint not null default 0,
    cache_read_tokens bigint not null default 0,
    cache_write_tokens bigint not null default 0,
    cache_write_1h_tokens bigint not null default 0,
    output_tokens bigint not null default 0,
    reasoning_tokens bigint not null default 0,
    price_unknown bigint not null default 0,
    estimated bigint not null default 0,
    outcome text collate "C",
    status bigint not null default 0,
    duration_ms bigint not null default 0,
    reserved_at bigint not null,
    settled_at bigint,
    primary key (org_id, id),
    foreign key (org_id, run_id) references run (org_id, id)
);

create index charge_of_run on charge (org_id, run_id, id);
create index charge_of_day on charge (org_id, day);

-- Running totals, so that a reservation reads few rows however many calls there were: of a run (day 0), and of an
-- agent and the org by day.
create table charge_total (
    org_id text collate "C" not null,
    scope text collate "C" not null,
    name text collate "C" not null,
    day bigint not null,
    spent bigint not null default 0,
    reserved bigint not null default 0,
    primary key (org_id, scope, name, day),
    foreign key (org_id) references org (org_id)
);

create table budget (
    org_id text collate "C" not null,
    id text collate "C" not null,
    scope text collate "C" not null,
    name text collate "C" not null,
    period text collate "C" not null,
    amount bigint not null,
    created_at bigint not null,
    updated_at bigint not null,
    primary key (org_id, id),
    unique (org_id, scope, name, period),
    foreign key (org_id) references org (org_id)
);

-- The prices that an org set in place of the program's.
create table price_table (
    org_id text collate "C" not null,
    body text collate "C" not null,
    updated_at bigint not null,
    primary key (org_id),
    foreign key (org_id) references org (org_id)
);

-- The second wall, as in the ground.
alter table charge enable row level security;
alter table charge force row level security;
create policy org_scope on charge to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table charge_total enable row level security;
alter table charge_total force row level security;
create policy org_scope on charge_total to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table budget enable row level security;
alter table budget force row level security;
create policy org_scope on budget to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));
alter table price_table enable row level security;
alter table price_table force row level security;
create policy org_scope on price_table to tipstaff_app
    using (org_id = current_setting('app.org_id', true))
    with check (org_id = current_setting('app.org_id', true));

-- The ledger is not deleted from: what was spent stays spent.
grant select, insert, update on charge, charge_total to tipstaff_app;
grant select, insert, update, delete on budget, price_table to tipstaff_app;
