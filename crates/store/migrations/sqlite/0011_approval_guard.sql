-- What was asked is not rewritten while its run goes on; a sweep erases it after the end.
create trigger approval_guard before update of action, because on approval
when (new.action is not old.action or new.because is not old.because) and exists
    (select 1 from run where run.org_id = old.org_id and run.id = old.run_id and run.ended_at is null)
begin
    select raise(abort, 'a question of a run that goes on is not rewritten');
end;
