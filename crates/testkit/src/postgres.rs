//! A PostgreSQL server of its own for tests and measurements.
//!
//! Promises: nothing but a socket in a temporary folder (no TCP); no other server is touched; the server ends and its
//! folder goes when the process that started it ends, even by SIGKILL, because a small shell between the two waits for
//! the end of a pipe. Started by root it runs as another user, since PostgreSQL refuses root.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// The harness could not start or use a server.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// No binaries.
    #[error("no PostgreSQL under /usr/lib/postgresql: install it with `apt-get install postgresql`")]
    NotInstalled,
    /// Root has no other user to become.
    #[error("PostgreSQL refuses root, and there is neither a user 'postgres' nor 'nobody' to run it as")]
    NoUser,
    /// A file or process could not be made.
    #[error("{what} failed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A program of PostgreSQL ended badly.
    #[error("{program} failed: {output}")]
    Program {
        /// Which one.
        program: String,
        /// What it wrote.
        output: String,
    },
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> HarnessError {
    move |source| HarnessError::Io { what, source }
}

/// Whether what is committed survives a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// fsync is off: for tests.
    Off,
    /// As in production: for measurements.
    Full,
}

/// The superuser of the server.
pub const SUPERUSER: &str = "postgres";
/// A role that owns databases and may make roles, but is no superuser: as a careful administrator would have it.
pub const OWNER: &str = "tipstaff_owner";

/// A running server. It ends when this is dropped, and when the process ends.
#[derive(Debug)]
pub struct PostgresServer {
    binaries: PathBuf,
    folder: PathBuf,
    user: Option<(u32, u32)>,
    // Holds the pipe whose end stops the server.
    keeper: Mutex<Child>,
}

#[expect(clippy::disallowed_methods, reason = "tests start servers; nothing confined is involved")]
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/");
    command
}

/// The newest version of Debian's folders.
fn find_binaries() -> Result<PathBuf, HarnessError> {
    let folders = std::fs::read_dir("/usr/lib/postgresql").map_err(|_| HarnessError::NotInstalled)?;
    folders
        .filter_map(Result::ok)
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").exists())
        .max()
        .map(|(_, bin)| bin)
        .ok_or(HarnessError::NotInstalled)
}

/// The uid and gid to run the server as; `None` for an ordinary user.
fn other_user(folder: &Path) -> Result<Option<(u32, u32)>, HarnessError> {
    let mine = std::fs::metadata(folder).map_err(io("looking at the temporary folder"))?.uid();
    if mine != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").map_err(io("reading /etc/passwd"))?;
    let find = |wanted: &str| {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            (name == wanted).then_some((uid.parse().ok()?, gid.parse().ok()?))
        })
    };
    find("postgres").or_else(|| find("nobody")).map(Some).ok_or(HarnessError::NoUser)
}

/// A folder whose path leaves room for a socket's name.
fn make_folder() -> Result<PathBuf, HarnessError> {
    let base = std::env::temp_dir();
    let base = if base.as_os_str().len() > 60 { PathBuf::from("/tmp") } else { base };
    let folder =
        tempfile::Builder::new().prefix("tipstaff-pg-").tempdir_in(base).map_err(io("making a folder"))?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700))
        .map_err(io("setting the folder's mode"))?;
    // The shell removes it: it outlives this process.
    Ok(folder.keep())
}

impl PostgresServer {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// [`HarnessError::NotInstalled`] without PostgreSQL; what the programs wrote when they fail.
    pub fn start(durability: Durability) -> Result<Self, HarnessError> {
        let binaries = find_binaries()?;
        let folder = make_folder()?;
        let user = other_user(&folder)?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).map_err(io("giving the folder away"))?;
        }
        let as_user = |mut command: Command| {
            if let Some((uid, gid)) = user {
                command.gid(gid).uid(uid);
            }
            command
        };
        let mut initdb = as_user(command(&binaries.join("initdb")));
        initdb.arg("-D").arg(folder.join("data")).args(["-U", SUPERUSER, "--auth=trust", "--no-sync"]);
        initdb.args(["--locale=C", "--encoding=UTF8"]);
        run("initdb", &mut initdb)?;

        let mut keeper = as_user(command(Path::new("/bin/sh")));
        // Its own group, so that Ctrl-C in a terminal reaches the tests first and the server through the pipe.
        keeper.args(["-c", KEEPER, "keeper"]).arg(&binaries).arg(&folder).process_group(0);
        keeper.args(["-c", "listen_addresses=", "-c", "max_connections=300", "-c", "shared_buffers=64MB"]);
        if durability == Durability::Off {
            keeper.args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]);
        }
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = keeper.spawn().map_err(io("starting PostgreSQL"))?;
        wait_until_ready(&mut child)?;
        let server = Self { binaries, folder, user, keeper: Mutex::new(child) };
        server.sql("postgres", &format!("create role {OWNER} login createrole"))?;
        Ok(server)
    }

    /// The address of a database for a role.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@localhost/{database}?host={}", self.folder.display())
    }

    /// Runs statements as the superuser; what they answered, one row per line, columns separated by `|`.
    ///
    /// # Errors
    /// [`HarnessError::Program`] with the server's message.
    pub fn sql(&self, database: &str, text: &str) -> Result<String, HarnessError> {
        self.sql_as(SUPERUSER, database, text)
    }

    /// Runs statements as a role, in one session.
    ///
    /// # Errors
    /// [`HarnessError::Program`] with the server's message.
    pub fn sql_as(&self, role: &str, database: &str, text: &str) -> Result<String, HarnessError> {
        let mut psql = command(&self.binaries.join("psql"));
        psql.arg("-h").arg(&self.folder).args([
            "-U",
            role,
            "-d",
            database,
            "-v",
            "ON_ERROR_STOP=1",
            "-XAtqc",
            text,
        ]);
        run("psql", &mut psql)
    }

    /// Makes an empty database that [`OWNER`] owns.
    ///
    /// # Errors
    /// [`HarnessError::Program`] when there is one of this name.
    pub fn database_create(&self, name: &str) -> Result<(), HarnessError> {
        self.sql("postgres", &format!("create database {name} owner {OWNER}")).map(drop)
    }

    /// Makes a copy of a database that nobody is connected to.
    ///
    /// # Errors
    /// [`HarnessError::Program`] when somebody is.
    pub fn database_copy(&self, template: &str, name: &str) -> Result<(), HarnessError> {
        self.sql("postgres", &format!("create database {name} template {template} owner {OWNER}")).map(drop)
    }

    fn control(&self, arguments: &[&str]) -> Result<(), HarnessError> {
        let mut control = command(&self.binaries.join("pg_ctl"));
        if let Some((uid, gid)) = self.user {
            control.gid(gid).uid(uid);
        }
        control.arg("-D").arg(self.folder.join("data")).args(["-w", "-s"]).args(arguments);
        // It leaves the server behind, which must not hold our pipes.
        control.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = control.status().map_err(io("starting pg_ctl"))?;
        if status.success() {
            return Ok(());
        }
        Err(HarnessError::Program { program: "pg_ctl".to_owned(), output: status.to_string() })
    }

    /// Stops the server: connections are cut, what was committed stays. [`PostgresServer::resume`] starts it again.
    ///
    /// # Errors
    /// [`HarnessError::Program`] when it does not stop.
    pub fn halt(&self) -> Result<(), HarnessError> {
        self.control(&["-m", "fast", "stop"])
    }

    /// Starts the server again after [`PostgresServer::halt`], and waits until it is ready.
    ///
    /// # Errors
    /// [`HarnessError::Program`] when it does not start.
    pub fn resume(&self) -> Result<(), HarnessError> {
        let options = format!(
            "-k {} -c listen_addresses= -c max_connections=300 -c shared_buffers=64MB -c fsync=off",
            self.folder.display()
        );
        self.control(&["-o", &options, "start"])
    }

    /// Ends every connection to a database, as a restart of the server would.
    ///
    /// # Errors
    /// [`HarnessError::Program`] with the server's message.
    pub fn disconnect_all(&self, database: &str) -> Result<(), HarnessError> {
        let text = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}' and pid <> pg_backend_pid()"
        );
        self.sql("postgres", &text).map(drop)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(keeper.stdin.take());
        let _ = keeper.wait();
    }
}

/// Runs the server until its standard input ends, then stops it and removes the folder. The two folders come before
/// the server's own arguments.
const KEEPER: &str = r#"
binaries=$1; folder=$2; shift 2
"$binaries/postgres" -D "$folder/data" -k "$folder" "$@" </dev/null &
server=$!
trap '' INT TERM HUP
cat >/dev/null
# A server that was stopped and started again is not our child.
server=$(head -n 1 "$folder/data/postmaster.pid" 2>/dev/null)
if [ -n "$server" ]; then
  kill -INT "$server"
  while kill -0 "$server" 2>/dev/null; do sleep 0.05; done
fi
wait
rm -rf "$folder"
"#;

fn run(name: &str, command: &mut Command) -> Result<String, HarnessError> {
    let output = command.stdin(Stdio::null()).output().map_err(io("starting a program of PostgreSQL"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(HarnessError::Program { program: name.to_owned(), output: text })
}

/// Reads the server's log up to the line that says it is ready; a thread reads the rest, so that it never blocks.
fn wait_until_ready(child: &mut Child) -> Result<(), HarnessError> {
    let Some(stderr) = child.stderr.take() else { return Ok(()) };
    let mut log = BufReader::new(stderr);
    let mut all = String::new();
    loop {
        let start = all.len();
        let read = log.read_line(&mut all).map_err(io("reading PostgreSQL's log"))?;
        if read == 0 {
            return Err(HarnessError::Program { program: "postgres".to_owned(), output: all });
        }
        if all.get(start..).is_some_and(|line| line.contains("ready to accept connections")) {
            break;
        }
    }
    std::thread::spawn(move || {
        let mut sink = [0_u8; 4096];
        while log.read(&mut sink).is_ok_and(|read| read > 0) {}
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_starts_answers_and_leaves_nothing() {
        let server = PostgresServer::start(Durability::Off).unwrap();
        server.database_create("one").unwrap();
        server.sql("one", "create table t (a bigint); insert into t values (1), (2)").unwrap();
        server.database_copy("one", "two").unwrap();
        assert_eq!(server.sql("two", "select a, a + 1 from t order by a").unwrap(), "1|2\n2|3");
        server.halt().unwrap();
        assert!(server.sql("two", "select 1").is_err());
        server.resume().unwrap();
        assert_eq!(server.sql("two", "select count(*) from t").unwrap(), "2");
        assert!(matches!(server.sql("one", "select nothing"), Err(HarnessError::Program { .. })));
        let folder = server.folder.clone();
        assert!(folder.join(".s.PGSQL.5432").exists());
        drop(server);
        assert!(!folder.exists());
    }
}
