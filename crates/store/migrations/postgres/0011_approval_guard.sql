-- What was asked is not rewritten while its run goes on; a sweep erases it after the end.
create function approval_guard() returns trigger language plpgsql set search_path = public, pg_temp as $guard$
begin
    if exists (select 1 from run where run.org_id = old.org_id and run.id = old.run_id and run.ended_at is null) then
        raise exception 'a question of a run that goes on is not rewritten' using errcode = 'check_violation';
    end if;
    return new;
end;
$guard$;

create trigger approval_guard before update of action, because on approval for each row
when (new.action is distinct from old.action or new.because is distinct from old.because)
execute function approval_guard();
