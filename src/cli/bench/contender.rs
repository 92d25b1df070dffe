//! Who takes turns in the rounds of a run. Without `--ceiling` the broker is alone, with it comes what limits it.

use serde::{Serialize, Serializer};

use super::args::{Durability, Workload};
use super::disk::Manner;
use super::plan::Plan;

/// What a durable append costs at least.
pub(super) const SYNC_EACH: Manner = Manner { files: 1, writes_per_sync: Some(1) };

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contender {
    /// The broker, under the plan as it is.
    Broker,
    /// The bare service, under the same plan.
    Service,
    /// The broker, under the same plan with one partition for all.
    OnePartition,
    /// A loop that writes the same batches to plain files.
    Writes(Manner),
    /// A loop that reads the files of the backlog.
    Reads,
    /// The broker with the warm readers of the plan, and nobody beside them.
    WarmAlone,
}

impl Contender {
    /// All of a plan, the broker first.
    pub(super) fn of(plan: &Plan) -> Vec<Self> {
        let mut all = vec![Self::Broker];
        if !plan.ceiling {
            return all;
        }
        all.push(Self::Service);
        if plan.workload == Workload::Produce {
            if plan.places() > 1 {
                all.push(Self::OnePartition);
            }
            all.extend(manners(plan).into_iter().map(Self::Writes));
        }
        if plan.cold {
            all.push(Self::Reads);
        }
        if plan.warm_readers > 0 {
            all.push(Self::WarmAlone);
        }
        all
    }

    /// As tables name it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Broker => "sagwan".to_owned(),
            Self::Service => "bare gRPC service".to_owned(),
            Self::OnePartition => "sagwan, one partition".to_owned(),
            Self::Writes(manner) => manner.to_string(),
            Self::Reads => "plain read of the same files".to_owned(),
            Self::WarmAlone => "warm readers alone".to_owned(),
        }
    }
}

/// Its name.
impl Serialize for Contender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

/// How plain files are written beside a plan: with a sync for each request; with one for as many as may be under way; and,
/// where there are several partitions, with a file for each and a sync for each request. At a rate, the first alone.
fn manners(plan: &Plan) -> Vec<Manner> {
    let under_way = plan.producers.saturating_mul(plan.in_flight);
    match plan.durability {
        Durability::Os => vec![Manner { files: 1, writes_per_sync: None }],
        Durability::Fsync if plan.rate_records_per_s.is_some() => vec![SYNC_EACH],
        Durability::Fsync => {
            let mut manners = vec![SYNC_EACH];
            if under_way > 1 {
                manners.push(Manner { files: 1, writes_per_sync: Some(under_way) });
            }
            if plan.places() > 1 {
                manners.push(Manner { files: plan.places(), ..SYNC_EACH });
            }
            manners
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::plan::tests::plan;

    #[test]
    fn each_plan_has_the_limits_that_it_can_come_near_to() {
        let names = |line: &str| {
            let plan = plan(line, false).expect(line);
            Contender::of(&plan).into_iter().map(Contender::name).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(names("produce"), "sagwan");
        assert_eq!(
            names("produce --ceiling --partitions 3 --in-flight 8"),
            "sagwan; bare gRPC service; sagwan, one partition; plain file, fdatasync for each write; \
             plain file, fdatasync for 8 writes; 3 plain files, fdatasync for each write"
        );
        assert_eq!(
            names("produce --ceiling --rate 5"),
            "sagwan; bare gRPC service; plain file, fdatasync for each write"
        );
        assert_eq!(
            names("earliest --ceiling --cold --warm-readers 1"),
            "sagwan; bare gRPC service; plain read of the same files; warm readers alone"
        );
    }
}
