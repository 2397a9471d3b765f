# Runs inside the sandbox, after every process of the run is dead, on a workspace that an agent could write.
# It commits what is there with a git directory of its own, whose configuration nobody but this script wrote, so no
# hook, filter, driver or signing program of the workspace has a say; then it pushes to the broker, the only way out.
# What the workspace's own .git says is used as a hint (HEAD, index) and never trusted.
#
# Exit codes: 0 pushed or nothing to push (the last line of standard error says which), 10 the push was refused, and the
# change is on standard output as a patch, so that it is not lost; 11 the change could not be committed.
set -u
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_TERMINAL_PROMPT=0 GIT_ATTR_NOSYSTEM=1 LC_ALL=C
export GIT_OPTIONAL_LOCKS=0 GIT_LFS_SKIP_SMUDGE=1 GIT_ADVICE=0
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
umask 022
cd /work || exit 11

say() { printf '%s\n' "$*" >&2; }
own=$(mktemp -d /work/.tipstaff-collect-XXXXXXXXXX 2>/dev/null) || own=$(mktemp -d /tmp/.tipstaff-collect-XXXXXXXXXX) || {
    say 'no room for the collection'; exit 11; }
trap 'cd /; rm -rf "$own"' EXIT
dir=$own/git

inner() { git --git-dir="$dir" --work-tree=/work -c core.hooksPath=/dev/null -c core.fsmonitor=false \
    -c core.bare=false -c commit.gpgSign=false -c gc.auto=0 -c maintenance.auto=false -c protocol.version=2 \
    -c http.followRedirects=false -c core.quotePath=true -c advice.addEmbeddedRepo=false "$@"; }

git init -q --bare --template= "$dir" || { say 'no git directory for the collection'; exit 11; }
mkdir -p "$dir/info" "$dir/objects/info"
printf '/.tipstaff-collect-*/\n' >"$dir/info/exclude"
# What the set-up of the repository made is no part of the change.
if [ -f /tipstaff/setup-exclude ]; then cat /tipstaff/setup-exclude >>"$dir/info/exclude"; fi
# Objects of the workspace, and those that the host lends read-only.
if [ -d /work/.git/objects ]; then printf '/work/.git/objects\n' >>"$dir/objects/info/alternates"; fi
for lent in ${TIPSTAFF_ALTERNATES:-}; do printf '%s\n' "$lent" >>"$dir/objects/info/alternates"; done
if [ -f /work/.git/shallow ]; then cp /work/.git/shallow "$dir/shallow"; fi

have() { inner cat-file -e "$1^{commit}" 2>/dev/null; }
if ! have "$TIPSTAFF_BASE"; then
    # The agent removed or broke its objects: get the base again through the broker.
    rm -f "$dir/objects/info/alternates" "$dir/shallow"
    inner fetch -q --no-tags "$TIPSTAFF_REMOTE" "$TIPSTAFF_BASE" 2>"$own/fetch" || {
        say "the base can't be fetched: $(head -c 300 "$own/fetch" | tr -c '[:print:]' ' ')"; exit 11; }
fi

head=$(git --git-dir=/work/.git -c core.fsmonitor=false -c core.hooksPath=/dev/null rev-parse -q --verify 'HEAD^{commit}' 2>/dev/null) || head=
case $head in *[!0-9a-f]*) head= ;; esac
if [ -z "$head" ] || ! have "$head" || ! inner merge-base --is-ancestor "$TIPSTAFF_BASE" "$head" 2>/dev/null; then
    head=$TIPSTAFF_BASE
fi
inner update-ref --no-deref HEAD "$head" || exit 11

# The workspace's index saves hashing every file again; without it, or with a broken one, start from the commit.
index=
if [ -f /work/.git/index ] && [ ! -L /work/.git/index ]; then cp /work/.git/index "$dir/index" 2>/dev/null && index=1; fi
if [ -n "$index" ] && ! inner update-index -q --really-refresh --no-split-index --no-untracked-cache >/dev/null 2>&1; then
    inner ls-files -s >/dev/null 2>&1 || index=
fi
if [ -z "$index" ]; then rm -f "$dir/index"; inner read-tree "$head" || exit 11; fi
# Flags that would hide a change (assume-unchanged, skip-worktree) don't survive a round through plain entries.
if inner ls-files -v | grep -q '^[a-zS]'; then rm -f "$dir/index"; inner read-tree "$head" || exit 11; fi

inner add -A --ignore-errors -- . >"$own/add" 2>&1 || say "left out: $(head -c 300 "$own/add" | tr -c '[:print:]' ' ')"

# A repository inside the repository would become a submodule, which the warrant does not grant.
if [ "${TIPSTAFF_SUBMODULES:-0}" != 1 ]; then
    inner ls-tree -r "$head" | sed -n 's/^160000 commit [0-9a-f]*\t//p' | sort >"$own/links-before"
    inner ls-files -s | sed -n 's/^160000 [0-9a-f]* [0-9]\t//p' | sort >"$own/links-after"
    comm -13 "$own/links-before" "$own/links-after" | while IFS= read -r link; do
        say "left out: $link is a repository of its own"
        inner update-index --force-remove -- "$link"
    done
fi

tree=$(inner write-tree) || { say 'the tree could not be written'; exit 11; }
tip=$head
if [ "$tree" != "$(inner rev-parse "$head^{tree}")" ]; then
    tip=$(printf '%s\n' "$TIPSTAFF_MESSAGE" | inner commit-tree "$tree" -p "$head") || {
        say 'the commit could not be written'; exit 11; }
fi

# What the run itself pushed is there already; a history that was rewritten since is laid on top of it.
there=$(inner ls-remote "$TIPSTAFF_REMOTE" "$TIPSTAFF_REF" 2>/dev/null | cut -f1)
if [ -n "$there" ] && have "$there" && ! inner merge-base --is-ancestor "$there" "$tip"; then
    if [ "$tree" = "$(inner rev-parse "$there^{tree}")" ]; then tip=$there
    else tip=$(printf '%s\n' "$TIPSTAFF_MESSAGE" | inner commit-tree "$tree" -p "$there") || exit 11; fi
fi
if [ "$tip" = "$TIPSTAFF_BASE" ] || [ "$tip" = "$there" ]; then say unchanged; exit 0; fi
push() { inner push -q --no-verify "$TIPSTAFF_REMOTE" "$1:$TIPSTAFF_REF" 2>"$own/push"; }
if ! push "$tip"; then
    # A commit of the run was refused: in somebody's name, or with something that a later one takes back. The result alone,
    # as one commit in the run's name, may pass; it is judged like any other.
    from=${there:-$TIPSTAFF_BASE}
    one=
    if [ "$head" != "$TIPSTAFF_BASE" ] && have "$from"; then
        one=$(printf '%s\n' "$TIPSTAFF_MESSAGE" | inner commit-tree "$tree" -p "$from") || one=
    fi
    first=$(head -c 300 "$own/push" | tr -c '[:print:]' ' ')
    if [ -z "$one" ] || ! push "$one"; then
        inner diff-tree -r -p --binary --no-renames --no-ext-diff --no-textconv "$TIPSTAFF_BASE" "$tip" --
        say "push refused: $(head -c 600 "$own/push" | tr -c '[:print:]' ' ')"; exit 10
    fi
    say "made one: the commits of the run were refused, so its result is one commit; $first"
fi
say pushed
