//! Agent profiles, by name.

use crate::error::StoreError;
use crate::sql::{Columns, Value, statements, values};
use crate::transaction::{OrgRead, OrgTx};
use serde::{Deserialize, Serialize};
use tipstaff_model::agent::agent_name_is_valid;
use tipstaff_model::{Agent, AgentId, AgentRole, EngineKind};

statements! {
    scoped AGENT_SET =
        "insert into agent (org_id, id, name, role, engine, model, instructions, options, created_at, updated_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) on conflict (org_id, name) do update set \
         role = excluded.role, engine = excluded.engine, model = excluded.model, \
         instructions = excluded.instructions, options = excluded.options, updated_at = excluded.updated_at \
         returning id";
    scoped AGENT_GET =
        "select id, name, role, engine, model, instructions, options from agent where org_id = $1 and name = $2";
    scoped AGENT_LIST =
        "select id, name, role, engine, model, instructions, options from agent where org_id = $1 order by name";
    scoped AGENT_REMOVE = "delete from agent where org_id = $1 and name = $2";
}

/// The part of a profile that only its engine looks at.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Options {
    #[serde(default)]
    command: Vec<String>,
}

/// An agent's profile without its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentDraft {
    /// Its name, unique in the org.
    pub name: String,
    /// Its role.
    pub role: AgentRole,
    /// Its engine.
    pub engine: EngineKind,
    /// The command that it runs, for the `command` engine.
    pub command: Vec<String>,
    /// The model, where the engine has one.
    pub model: Option<String>,
    /// Text for the agent.
    pub instructions: String,
}

fn agent(mut columns: Columns<'_>) -> Result<Agent, StoreError> {
    Ok(Agent {
        id: columns.parsed("id")?,
        name: columns.text()?,
        role: columns.parsed("role")?,
        engine: columns.parsed("engine")?,
        model: columns.text_opt()?,
        instructions: columns.text()?,
        command: columns.json::<Options>("options")?.command,
    })
}

impl OrgRead {
    /// The agent of a name.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn agent_get(&mut self, name: &str) -> Result<Option<Agent>, StoreError> {
        self.first(AGENT_GET, values![name]).await?.map(|row| agent(row.read("agent"))).transpose()
    }

    /// All agents, by name.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn agent_list(&mut self) -> Result<Vec<Agent>, StoreError> {
        self.all(AGENT_LIST, &[]).await?.iter().map(|row| agent(row.read("agent"))).collect()
    }
}

impl OrgTx {
    /// Makes an agent, or changes the one of this name.
    ///
    /// # Errors
    /// `input` for a name that isn't 1 to 40 of `a–z 0–9 -` starting with a letter.
    pub async fn agent_set(&mut self, draft: &AgentDraft) -> Result<AgentId, StoreError> {
        if !agent_name_is_valid(&draft.name) {
            let why = "write 1 to 40 of a-z, 0-9 and '-', starting with a letter".to_owned();
            return Err(StoreError::Input { what: "agent's name", why });
        }
        let options = serde_json::to_string(&Options { command: draft.command.clone() })
            .map_err(|error| StoreError::Input { what: "agent's command", why: error.to_string() })?;
        let id = AgentId::new(&*self.inner.clock, &*self.inner.entropy);
        let now = self.inner.now();
        let row: &[Value<'_>] = values![
            id,
            &draft.name,
            draft.role.as_str(),
            draft.engine.as_str(),
            draft.model.as_deref(),
            &draft.instructions,
            &options,
            now,
        ];
        let row = self.first(AGENT_SET, row).await?;
        row.ok_or(StoreError::Missing { what: "agent" })?.read("agent").parsed("id")
    }

    /// Removes an agent; whether there was one.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn agent_remove(&mut self, name: &str) -> Result<bool, StoreError> {
        Ok(self.change(AGENT_REMOVE, values![name]).await? > 0)
    }
}
