# Runs inside a sandbox, after every process of a set-up is dead, on a workspace that can't be written here.
# Standard error: what the set-up made and the repository does not ignore, each name ended by a zero byte: file by file, or
# by folder where there are more than $TIPSTAFF_MOST. Standard output, where TIPSTAFF_ARCHIVE is 1: everything that it made.
# The git directory is its own: no configuration, hook or filter of the workspace has a say.
set -u
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_TERMINAL_PROMPT=0 GIT_ATTR_NOSYSTEM=1 LC_ALL=C
export GIT_OPTIONAL_LOCKS=0 GIT_ADVICE=0
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
cd /work || exit 11
dir=/tmp/git
git init -q --bare --template= "$dir" 2>/dev/null || exit 12
mkdir -p "$dir/info" "$dir/objects/info"
if [ -d /work/.git/objects ]; then printf '/work/.git/objects\n' >>"$dir/objects/info/alternates"; fi
for lent in ${TIPSTAFF_ALTERNATES:-}; do printf '%s\n' "$lent" >>"$dir/objects/info/alternates"; done
inner() { git --git-dir="$dir" --work-tree=/work -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.bare=false "$@"; }
inner read-tree "$TIPSTAFF_BASE" 2>/dev/null || exit 13
inner ls-files -o --exclude-standard -z >/tmp/made 2>/dev/null || exit 14
count=$(tr -dc '\0' </tmp/made | wc -c)
if [ "$count" -gt "$TIPSTAFF_MOST" ]; then
    inner ls-files -o --exclude-standard --directory -z >/tmp/made 2>/dev/null || exit 14
fi
if [ "${TIPSTAFF_ARCHIVE:-0}" = 1 ]; then
    inner ls-files -o -z >/tmp/all 2>/dev/null || exit 15
    tar -c --null --verbatim-files-from -T /tmp/all -f - 2>/dev/null || exit 16
fi
cat /tmp/made >&2
