//! Writers over gRPC that write to a server until it is gone or refuses, each batch noted in its partition's ledger
//! outside the server; and the reader that settles the ledgers afterwards.
//!
//! Each partition has three writers: one pipelined over a stream of encoded batches; one that sends records and waits; and
//! an idempotent one, which at each start first sends again what it does not know the fate of.

mod target;
mod writer;

use std::sync::Arc;

use sagwan::proto::CreateTopicRequest;
use sagwan::proto::admin_service_client::AdminServiceClient;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::ledger::{Breach, Ledger, Scope, Settled, Totals};
use crate::process::ServerProcess;
use target::Target;
use writer::{MANNERS, Writer};

pub use writer::End;

/// Of each topic.
const PARTITIONS: i32 = 2;
/// So small that faults fall on rolls too.
pub const SMALL_SEGMENTS: u64 = 2 << 20;

type Judge = fn(&mut Ledger, Scope, &[(i64, bytes::Bytes)]) -> Result<Settled, Breach>;

/// Topics, everything that was ever sent to them, and those who write to them.
#[derive(Debug)]
pub struct Load {
    targets: Vec<Arc<Target>>,
    /// Those that do not write now.
    writers: Vec<Writer>,
    writing: JoinSet<(Writer, End)>,
    /// One permit for each acknowledgement since the start. Closed when no more are noted.
    acks: Arc<Semaphore>,
}

impl Load {
    /// Creates topics, given as name and durability.
    pub async fn create(
        server: &ServerProcess,
        topics: &[(&'static str, &str)],
        segment_bytes: u64,
        random: &mut fastrand::Rng,
    ) -> Self {
        let mut admin = AdminServiceClient::new(connect(server).await);
        let segment_bytes = segment_bytes.to_string();
        let mut targets = Vec::new();
        for &(topic, durability) in topics {
            let config = [("durability", durability), ("segment_bytes", &segment_bytes)];
            let request = CreateTopicRequest {
                name: topic.to_owned(),
                partitions: Some(PARTITIONS),
                config: config.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                validate_only: false,
            };
            admin
                .create_topic(request)
                .await
                .unwrap_or_else(|status| panic!("{topic} cannot be created: {status}"));
            targets.extend((0..PARTITIONS).map(|partition| Arc::new(Target::new(topic, partition))));
        }
        let writers = (0..)
            .zip(targets.iter().flat_map(|target| MANNERS.map(|manner| (target, manner))))
            .map(|(id, (target, manner))| Writer::new(target.clone(), id, manner, random.fork()))
            .collect();
        Self { targets, writers, writing: JoinSet::new(), acks: Arc::new(Semaphore::new(0)) }
    }

    /// Without the idempotent writers: who sends again until he is answered is lost where acknowledged batches may be.
    #[must_use]
    pub fn without_idempotent(mut self) -> Self {
        self.writers.retain(|writer| !writer.is_idempotent());
        self
    }

    /// Has every writer write.
    pub async fn start(&mut self, server: &ServerProcess) {
        self.start_heard(server, |_| true).await;
    }

    /// The same, to a server that lives without its disk. Idempotent writers are not heard: what they send again may
    /// have been taken while the power was being cut, when the kernel can say of a sync that it is done and it is not.
    pub async fn start_without_disk(&mut self, server: &ServerProcess) {
        self.start_heard(server, |writer| !writer.is_idempotent()).await;
    }

    async fn start_heard(&mut self, server: &ServerProcess, is_heard: impl Fn(&Writer) -> bool) {
        // A new one: answers may have come after the last fault.
        self.acks = Arc::new(Semaphore::new(0));
        let nobody = Arc::new(Semaphore::new(0));
        nobody.close();
        for writer in self.writers.drain(..) {
            let acks = if is_heard(&writer) { &self.acks } else { &nobody };
            self.writing.spawn(writer.write(connect(server).await, Arc::clone(acks)));
        }
    }

    /// Waits for acknowledgements since the start, so many.
    ///
    /// # Panics
    /// If a writer ends before: a server that is well takes every batch.
    pub async fn acknowledgements(&mut self, count: u32) {
        tokio::select! {
            permits = self.acks.acquire_many(count) => match permits {
                Ok(permits) => permits.forget(),
                Err(closed) => unreachable!("{closed}"),
            },
            Some(ended) = self.writing.join_next() => panic!("a writer ended early: {:?}", ended.map(|(_, end)| end)),
        }
    }

    /// From here on acknowledgements are not noted, until the next start: nobody hears a machine without power.
    pub fn stop_listening(&self) {
        self.acks.close();
    }

    /// Waits until all who write have ended, as the server has, or takes no more.
    pub async fn ends(&mut self) -> Vec<End> {
        let (writers, ends): (Vec<_>, _) =
            std::mem::take(&mut self.writing).join_all().await.into_iter().unzip();
        self.writers.extend(writers);
        ends
    }

    /// Judges every partition by [`Ledger::settle`], as far back as the scope says.
    ///
    /// # Errors
    /// The first breach, and whose it is.
    pub async fn settle(&self, server: &ServerProcess, scope: Scope) -> Result<Settled, (String, Breach)> {
        self.judge(server, scope, Ledger::settle).await
    }

    /// Judges every partition by [`Ledger::settle_prefix`], likewise.
    ///
    /// # Errors
    /// The first breach, and whose it is.
    pub async fn settle_prefix(
        &self,
        server: &ServerProcess,
        scope: Scope,
    ) -> Result<Settled, (String, Breach)> {
        self.judge(server, scope, Ledger::settle_prefix).await
    }

    async fn judge(
        &self,
        server: &ServerProcess,
        scope: Scope,
        judge: Judge,
    ) -> Result<Settled, (String, Breach)> {
        let channel = connect(server).await;
        let mut sum = Settled::default();
        for target in &self.targets {
            let from = target.ledger().from(scope);
            let records = target.read(channel.clone(), from).await;
            let settled = judge(&mut target.ledger(), scope, &records);
            sum += settled.map_err(|breach| (target.name(), breach))?;
        }
        Ok(sum)
    }

    /// All that was acknowledged since the topics were created.
    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for target in &self.targets {
            sum += target.ledger().totals();
        }
        sum
    }
}

/// A connection to a server that is ready.
///
/// # Panics
/// If it cannot be made.
pub async fn connect(server: &ServerProcess) -> Channel {
    let endpoint = Channel::from_shared(server.url()).unwrap_or_else(|error| panic!("{error}"));
    endpoint.connect().await.unwrap_or_else(|error| panic!("{}: {error}", server.url()))
}
