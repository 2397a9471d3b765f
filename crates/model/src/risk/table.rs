//! What is known to destroy, to publish, to reach outside, or to hold what must not get out.

use crate::approval::Risk::{self, Critical, High, Medium};
use crate::policy::shell::Command;

/// A program, words that must be among its words, how much it can break, and why. A word such as `-f|--force` stands for
/// either, `-f` also for a cluster of letters that holds it, `delete*` for every word that begins so.
type Mark = (&'static str, &'static [&'static str], Risk, &'static str);

const REMOVES: &str = "it removes files";
const PUBLISHES: &str = "it publishes";
const PUSHES_OVER: &str = "it overwrites what others may have";
const THROWS: &str = "it throws changes away";
const CLUSTER: &str = "it changes a cluster";
const INFRA: &str = "it changes infrastructure";
const CLOUD: &str = "it acts on a cloud";
const CLOUD_CHANGES: &str = "it changes or removes something of a cloud";
const FORGE: &str = "it acts on the forge";
const RIGHTS: &str = "it changes permissions widely";
const SENDS: &str = "it sends data away";
const REACHES: &str = "it reaches another machine";
const ENDS: &str = "it ends processes";
const SYSTEM: &str = "it changes the system";
const DEPLOYS: &str = "it deploys";
const DATABASE: &str = "it removes a database";

const MARKS: &[Mark] = &[
    ("rm", &[], High, REMOVES),
    ("rmdir", &[], Medium, REMOVES),
    ("unlink", &[], High, REMOVES),
    ("shred", &[], High, REMOVES),
    ("truncate", &[], High, "it empties files"),
    ("find", &["-delete"], High, REMOVES),
    ("dd", &[], High, "it writes raw data"),
    ("mkfs*", &[], High, "it makes a file system"),
    ("wipefs", &[], High, "it makes a disk empty"),
    ("fdisk", &[], High, "it changes partitions"),
    ("git", &["push"], High, "it pushes"),
    ("git", &["push", "-f|--force*|--mirror|--delete|-d|+*"], Critical, PUSHES_OVER),
    ("git", &["reset", "--hard|--merge|--keep"], High, THROWS),
    ("git", &["clean"], High, REMOVES),
    ("git", &["checkout|restore|switch"], Medium, "it may overwrite changes"),
    ("git", &["checkout|switch", "-f|--force|--discard-changes"], High, THROWS),
    ("git", &["branch", "-D|--delete"], High, "it removes a branch"),
    ("git", &["stash", "drop|clear"], High, THROWS),
    ("git", &["reflog", "expire"], High, THROWS),
    ("git", &["filter-branch|filter-repo"], High, "it rewrites history"),
    ("git", &["config", "--global|--system"], High, "it changes what git does elsewhere"),
    ("chmod", &["-R|--recursive"], High, RIGHTS),
    ("chmod", &["777|0777|a+w|a+rwx|o+w|ugo+w|666|0666"], High, RIGHTS),
    ("chmod", &["u+s|g+s|+s|4*|2*"], High, "it makes a program run as another user"),
    ("chown", &["-R|--recursive"], High, "it changes owners of a whole tree"),
    ("kill", &[], High, ENDS),
    ("pkill", &[], High, ENDS),
    ("killall", &[], High, ENDS),
    ("sudo", &[], High, "it asks for other rights"),
    ("doas", &[], High, "it asks for other rights"),
    ("su", &[], High, "it asks for other rights"),
    ("npm|pnpm|yarn|bun", &["publish|unpublish"], Critical, PUBLISHES),
    ("cargo", &["publish|yank"], Critical, PUBLISHES),
    ("gem", &["push|yank"], Critical, PUBLISHES),
    ("twine", &["upload"], Critical, PUBLISHES),
    ("poetry|uv|flit|hatch", &["publish"], Critical, PUBLISHES),
    ("docker|podman|buildah|helm|skopeo|oras", &["push|copy"], Critical, PUBLISHES),
    ("docker|podman", &["--privileged"], High, "it runs a container with all rights"),
    ("docker|podman", &["prune"], High, "it removes containers and images"),
    ("mvn", &["deploy"], Critical, PUBLISHES),
    ("gradle|gradlew", &["publish*"], Critical, PUBLISHES),
    ("dotnet", &["nuget", "push|delete"], Critical, PUBLISHES),
    ("vsce|ovsx", &["publish"], Critical, PUBLISHES),
    ("terraform|tofu|terragrunt", &["apply|import|taint|untaint|state|force-unlock"], Critical, INFRA),
    ("terraform|tofu|terragrunt", &["destroy|-destroy"], Critical, "it destroys infrastructure"),
    ("pulumi", &["up|update|import|state"], Critical, INFRA),
    ("pulumi", &["destroy"], Critical, "it destroys infrastructure"),
    ("cdk|sst|serverless|sls|sam", &["deploy|destroy|remove|delete"], Critical, DEPLOYS),
    ("ansible-playbook|ansible", &[], Critical, REACHES),
    ("kubectl|oc", &[], High, "it acts on a cluster"),
    (
        "kubectl|oc",
        &["apply|create|delete|patch|replace|edit|scale|drain|cordon|rollout|exec|label|annotate|set|taint"],
        Critical,
        CLUSTER,
    ),
    ("helm", &["install|upgrade|uninstall|delete|rollback"], Critical, CLUSTER),
    ("heroku|flyctl|fly|vercel|netlify|wrangler|firebase|railway|eb", &[], High, CLOUD),
    (
        "heroku|flyctl|fly|vercel|netlify|wrangler|firebase|railway|eb",
        &["deploy*|publish|up|--prod"],
        Critical,
        DEPLOYS,
    ),
    ("gh|glab|hub", &[], High, FORGE),
    ("gh|glab|hub", &["delete|merge|transfer|archive|-X|--method"], Critical, FORGE),
    ("gh|glab|hub", &["release", "create|upload|edit"], Critical, PUBLISHES),
    (
        "gh|glab|hub",
        &["secret|ssh-key|gpg-key|variable", "set|add|remove"],
        Critical,
        "it changes secrets of the forge",
    ),
    ("aws|gcloud|az|doctl|gsutil|bq", &[], High, CLOUD),
    (
        "aws|gcloud|az|doctl|gsutil|bq",
        &["delete*|rm|rb|terminate*|destroy*|purge|remove*|put-*|create*|update*|deploy*"],
        Critical,
        CLOUD_CHANGES,
    ),
    (
        "psql|mysql|mariadb|mongosh|mongo|sqlcmd|cockroach|clickhouse-client",
        &[],
        High,
        "it acts on a database",
    ),
    ("dropdb|mysqladmin", &[], Critical, DATABASE),
    ("redis-cli|valkey-cli", &["FLUSHALL|FLUSHDB|flushall|flushdb"], Critical, DATABASE),
    ("prisma|npx|bunx", &["migrate", "reset"], Critical, DATABASE),
    ("rails|rake", &["db:drop|db:reset|db:schema:load"], Critical, DATABASE),
    ("curl|wget|http|https|xh", &[], Medium, "it asks a host"),
    ("curl", &["-d|-F|-T|--data*|--form*|--upload-file|--json"], High, SENDS),
    ("wget", &["--post-*|--body-*"], High, SENDS),
    ("curl", &["-X|--request", "DELETE|PUT|PATCH|POST"], High, SENDS),
    ("ssh|scp|sftp|rsync|nc|ncat|netcat|socat|telnet|ftp", &[], High, REACHES),
    ("systemctl|service|shutdown|reboot|halt|poweroff", &[], High, SYSTEM),
    (
        "mount|umount|iptables|nft|sysctl|modprobe|insmod|useradd|usermod|userdel|passwd|visudo",
        &[],
        High,
        SYSTEM,
    ),
    ("crontab|at|launchctl", &[], High, "it makes something run later"),
    ("gpg|gpg2", &["--export-secret-keys|--export-secret-subkeys"], High, "it reads keys"),
    ("security", &["find-generic-password|find-internet-password|dump-keychain"], High, "it reads keys"),
];

/// Programs whose text may be SQL.
const SQL: &[&str] =
    &["psql", "mysql", "mariadb", "sqlite3", "sqlcmd", "cockroach", "clickhouse-client", "duckdb", "bq"];

fn word_is(word: &str, wanted: &str) -> bool {
    wanted.split('|').any(|one| {
        if let Some(front) = one.strip_suffix('*') {
            return word.starts_with(front) && (front != "+" || word.len() > 1);
        }
        let is_letter = one.len() == 2 && one.starts_with('-');
        let is_cluster = word.len() > 2
            && word.starts_with('-')
            && word.bytes().skip(1).all(|b| b.is_ascii_alphabetic())
            && word.len() <= 6;
        word == one
            || (is_letter && is_cluster && one.chars().nth(1).is_some_and(|letter| word.contains(letter)))
    })
}

/// What is known of a command.
pub(super) fn of_command(command: &Command) -> Vec<(Risk, &'static str)> {
    let program = command.program();
    let rest = command.words.get(1..).unwrap_or_default();
    let mut found: Vec<(Risk, &'static str)> = Vec::new();
    for (name, words, risk, why) in MARKS {
        if word_is(program, name) && words.iter().all(|wanted| rest.iter().any(|word| word_is(word, wanted)))
        {
            found.push((*risk, why));
        }
    }
    if SQL.contains(&program) {
        let text = command.text().to_ascii_lowercase();
        let destroys =
            ["drop table", "drop database", "drop schema", "drop owned", "truncate ", "delete from"];
        if destroys.iter().any(|words| text.contains(words)) {
            found.push((
                if program == "sqlite3" || program == "duckdb" { High } else { Critical },
                "it removes data",
            ));
        }
    }
    // The most that is known is enough.
    let most = found.iter().map(|(risk, _)| *risk).max();
    found.retain(|(risk, _)| Some(*risk) == most);
    found
}

/// Names of files that hold credentials: whole, or with a star at one end.
const CREDENTIALS: &[&str] = &[
    ".env",
    ".env.*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    ".npmrc",
    ".pypirc",
    ".netrc",
    "_netrc",
    ".git-credentials",
    ".pgpass",
    ".htpasswd",
    "credentials",
    "credentials.*",
    "secrets.*",
    "*.tfstate",
    "*.tfvars",
    "kubeconfig",
    "service-account*",
    ".dockercfg",
    "shadow",
];
/// Folders that hold them.
const CREDENTIAL_FOLDERS: &[&str] =
    &[".ssh", ".aws", ".gnupg", ".kube", ".azure", ".gcloud", ".docker", "secrets"];
/// Names that say that they are examples.
const EXAMPLES: &[&str] = &["example", "sample", "template", "dist", ".pub"];

/// What is known of a path.
pub(super) fn of_path(path: &str, changes: bool) -> Option<(Risk, &'static str)> {
    let lower = path.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let (name, folders) = parts.split_last()?;
    let named = |one: &&str| match (one.strip_prefix('*'), one.strip_suffix('*')) {
        (Some(end), _) => name.ends_with(end) && name.len() > end.len(),
        (None, Some(front)) => name.starts_with(front),
        (None, None) => name == one,
    };
    let is_example = EXAMPLES.iter().any(|word| name.ends_with(word));
    let holds =
        CREDENTIALS.iter().any(named) || folders.iter().any(|folder| CREDENTIAL_FOLDERS.contains(folder));
    if holds && !is_example {
        return Some((High, "may hold credentials"));
    }
    if !changes {
        return None;
    }
    let below = |front: &[&str]| parts.windows(front.len()).any(|window| window == front);
    let ci = below(&[".github", "workflows"])
        || below(&[".github", "actions"])
        || [".circleci", ".buildkite", ".woodpecker", ".gitea", ".forgejo"]
            .iter()
            .any(|folder| folders.contains(folder))
        || [
            ".gitlab-ci.yml",
            "jenkinsfile",
            "azure-pipelines.yml",
            ".travis.yml",
            "bitbucket-pipelines.yml",
            ".drone.yml",
        ]
        .contains(name);
    if ci {
        return Some((High, "decides what CI executes"));
    }
    if below(&[".git"])
        || folders.contains(&".husky")
        || [".pre-commit-config.yaml", "lefthook.yml", ".envrc"].contains(name)
    {
        return Some((High, "decides what git or a shell executes later"));
    }
    if *name == "codeowners" || *name == "tipstaff.toml" {
        return Some((High, "decides who looks at changes, or what runs may do"));
    }
    if [".claude", ".codex", ".gemini", ".opencode", ".cursor"].iter().any(|folder| folders.contains(folder))
        || *name == ".mcp.json"
    {
        return Some((High, "decides what agents execute"));
    }
    None
}
