-- Which run's session a task continues, so that a run can say by which ones it was continued.
alter table task add column resumes text;
create index task_resumes on task (org_id, resumes) where resumes is not null;
