-- Sub-runs: which run's warrant a task works under, and whose money its calls spend as well.
alter table task add column under_run text;
create index task_under on task (org_id, under_run, id) where under_run is not null;

-- The ids of the runs above, nearest first, separated by spaces; empty for a run of its own.
alter table charge add column above text not null default '';
