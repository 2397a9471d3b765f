//! Whose data: the scope that every tenant statement is bound to.

use tipstaff_model::{MemberId, OrgId};

/// The right to touch one org's rows.
///
/// It comes out of two doors only: authenticating a principal ([`crate::Store::authenticate_local`]), and a task's
/// lease ([`crate::Lease::scope`]). It can't be made from an id:
///
/// ```compile_fail,E0451
/// # fn forge(org: tipstaff_model::OrgId) {
/// let scope = tipstaff_store::OrgScope { org };
/// # }
/// ```
/// ```compile_fail,E0599
/// # fn forge(org: tipstaff_model::OrgId) {
/// let scope = tipstaff_store::OrgScope::new(org);
/// # }
/// ```
/// ```compile_fail,E0277
/// # fn forge(org: tipstaff_model::OrgId) {
/// let scope: tipstaff_store::OrgScope = org.into();
/// # }
/// ```
///
/// nor read from a request's body:
///
/// ```compile_fail,E0277
/// let scope: tipstaff_store::OrgScope = serde_json::from_str("\"\"").unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrgScope {
    org: OrgId,
}

impl OrgScope {
    /// Only for the two doors.
    pub(crate) const fn granted(org: OrgId) -> Self {
        Self { org }
    }

    /// Which org.
    #[must_use]
    pub const fn org(&self) -> OrgId {
        self.org
    }
}

/// Who is at the terminal of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPrincipal {
    /// This installation: a random id kept in the state folder, so that two machines with one database stay apart.
    pub installation: String,
    /// The operating system's user id.
    pub uid: u32,
    /// The name to call the person by.
    pub name: String,
}

impl LocalPrincipal {
    /// The key of the person in the table of local identities.
    pub(crate) fn key(&self) -> String {
        format!("local:{}:{}", self.installation, self.uid)
    }
}

/// An authenticated person and the org that they act in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The org.
    pub scope: OrgScope,
    /// The person in it.
    pub member: MemberId,
}

impl Principal {
    /// How the audit log names the person.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("member:{}", self.member)
    }
}
