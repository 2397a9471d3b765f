//! Questions to a person, their answers, and what a person says: the worker's side of them, over the store.

use super::{LocalControlPlane, SOON, silent, told};
use std::future::Future;
use tipstaff_model::{
    ActionDigest, Approval, ApprovalId, ApprovalRequest, ControlPlaneError, RunNews, SteerId, SteerState,
};
use tipstaff_store::StoreError;

impl LocalControlPlane {
    pub(super) async fn ask(&self, request: ApprovalRequest) -> Result<Approval, ControlPlaneError> {
        let mut tx = self.begin().await?;
        let asked = tx.approval_ask(&self.lease, &request).await.map_err(told)?;
        tx.commit().await.map_err(told)?;
        Ok(asked)
    }

    pub(super) async fn use_once(
        &self,
        id: ApprovalId,
        digest: ActionDigest,
    ) -> Result<bool, ControlPlaneError> {
        let mut tx = self.begin().await?;
        let used = tx.approval_use(&self.lease, id, &digest).await.map_err(told)?;
        tx.commit().await.map_err(told)?;
        Ok(used)
    }

    pub(super) async fn take_back(&self, id: ApprovalId) -> Result<(), ControlPlaneError> {
        let mut tx = self.begin().await?;
        tx.approval_withdraw(&self.lease, id).await.map_err(told)?;
        tx.commit().await.map_err(told)
    }

    /// One reading transaction; a writing one only when a question's time is over.
    pub(super) async fn look(&self, open: Vec<ApprovalId>) -> Result<RunNews, ControlPlaneError> {
        let mut news = soon(self.read_news(&open)).await?;
        let now = self.clock.wall_ms();
        if news.approvals.iter().any(|asked| asked.state_at(now) != asked.state) {
            soon(self.expire()).await?;
            news = soon(self.read_news(&open)).await?;
        }
        Ok(news)
    }

    async fn read_news(&self, open: &[ApprovalId]) -> Result<RunNews, StoreError> {
        let mut read = self.store.read(self.lease.scope()).await?;
        read.lease_look(&self.lease).await?;
        let mut news = RunNews::default();
        for id in open {
            let found = read.approval_get(*id).await?;
            news.approvals.extend(found.filter(|asked| asked.run == self.lease.run()));
        }
        news.steering = read.steer_waiting(self.lease.run()).await?;
        Ok(news)
    }

    async fn expire(&self) -> Result<(), StoreError> {
        let mut tx = self.store.begin(self.lease.scope()).await?;
        tx.approval_expire(&self.lease).await?;
        tx.commit().await
    }

    pub(super) async fn steering_ended(
        &self,
        id: SteerId,
        state: SteerState,
        note: Option<String>,
    ) -> Result<(), ControlPlaneError> {
        let mut tx = self.begin().await?;
        tx.steer_taken(&self.lease, id, state, note.as_deref()).await.map_err(told)?;
        tx.commit().await.map_err(told)
    }
}

/// A store that does not answer holds up nothing that watches the run.
async fn soon<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, ControlPlaneError> {
    tokio::time::timeout(SOON, asked).await.map_err(|_| silent())?.map_err(told)
}
