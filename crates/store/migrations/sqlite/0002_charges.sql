-- Money: the ledger of model calls, running totals, budgets, prices.

-- One row a call. It is reserved before the call and settled after it; presumed when its run ended in between.
create table charge (
    org_id text not null,
    id text not null,
    run_id text not null,
    agent text not null,
    provider text not null,
    model text not null,
    day integer not null,
    state text not null,
    reserved integer not null,
    cost integer not null default 0,
    input_tokens integer not null default 0,
    cache_read_tokens integer not null default 0,
    cache_write_tokens integer not null default 0,
    cache_write_1h_tokens integer not null default 0,
    output_tokens integer not null default 0,
    reasoning_tokens integer not null default 0,
    price_unknown integer not null default 0,
    estimated integer not null default 0,
    outcome text,
    status integer not null default 0,
    duration_ms integer not null default 0,
    reserved_at integer not null,
    settled_at integer,
    primary key (org_id, id),
    foreign key (org_id, run_id) references run (org_id, id)
) strict, without rowid;

create index charge_of_run on charge (org_id, run_id, id);
create index charge_of_day on charge (org_id, day);

-- Running totals, so that a reservation reads few rows however many calls there were: of a run (day 0), and of an
-- agent and the org by day.
create table charge_total (
    org_id text not null,
    scope text not null,
    name text not null,
    day integer not null,
    spent integer not null default 0,
    reserved integer not null default 0,
    primary key (org_id, scope, name, day),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

create table budget (
    org_id text not null,
    id text not null,
    scope text not null,
    name text not null,
    period text not null,
    amount integer not null,
    created_at integer not null,
    updated_at integer not null,
    primary key (org_id, id),
    unique (org_id, scope, name, period),
    foreign key (org_id) references org (org_id)
) strict, without rowid;

-- The prices that an org set in place of the program's.
create table price_table (
    org_id text not null,
    body text not null,
    updated_at integer not null,
    primary key (org_id),
    foreign key (org_id) references org (org_id)
) strict, without rowid;
