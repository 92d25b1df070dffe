//! A data directory of known content.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::PathBuf;

use bytes::BytesMut;
use sagwan::broker::{Broker, TopicSpec};
use sagwan::record::{self, ProducerStamp};
use sagwan::types::ProducerId;
use tokio::runtime::Runtime;

use super::partition::{Content, Part, TOPICS, append, batch, kill, leader_epoch, name, open, parts, read};

/// The least that a topic can be given, so that there are several.
const SEGMENT_BYTES: u32 = 64 << 10;

/// So many of its last batches each producer can send again: all that is promised to be remembered.
const RESENT: usize = 5;

/// The idempotent producer of a partition.
#[derive(Default)]
pub(crate) struct Producer {
    id: Option<ProducerId>,
    next_sequence: i32,
    /// Its last batches as they were sent, and the offset that each got.
    pub(crate) sent: VecDeque<(i64, BytesMut)>,
}

impl Producer {
    /// Appends one batch more.
    async fn append(&mut self, broker: &Broker, part: Part, mut batch: BytesMut) {
        let records = record::batches(&batch).next().expect("one").expect("a batch").record_count();
        let id = match self.id {
            Some(id) => id,
            None => *self.id.insert(broker.init_producer().await.expect("an id")),
        };
        let stamp =
            ProducerStamp { producer_id: id.get(), producer_epoch: 0, base_sequence: self.next_sequence };
        record::set_producer(&mut batch, stamp);
        let produced = append(broker, part, batch.clone()).await.expect("appended");
        self.next_sequence += records;
        self.sent.push_back((produced.base_offset.get(), batch));
        if self.sent.len() > RESENT {
            self.sent.pop_front();
        }
    }
}

/// A data directory, and what is in it.
pub(crate) struct Template {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clean: bool,
    pub(crate) newest_epoch: i32,
    pub(crate) contents: BTreeMap<Part, Content>,
    pub(crate) producers: BTreeMap<Part, Producer>,
}

impl Template {
    pub(crate) fn new(runtime: &Runtime, number: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(number);
        let dir = tempfile::tempdir().expect("a directory");
        let mut broker = open(runtime, dir.path()).expect("a broker");
        runtime.block_on(async {
            for (topic, partitions) in TOPICS {
                let config = [("segment_bytes", SEGMENT_BYTES), ("max_message_bytes", SEGMENT_BYTES)]
                    .map(|(setting, value)| (setting.to_owned(), value.to_string()));
                let spec = TopicSpec {
                    name: name(topic),
                    partitions: Some(partitions),
                    config: config.into(),
                    validate_only: false,
                };
                broker.create_topic(spec).await.expect("a new topic");
            }
        });
        let mut producers: BTreeMap<Part, Producer> =
            parts().map(|part| (part, Producer::default())).collect();
        let runs = 3;
        for run in 0..runs {
            runtime.block_on(async {
                for (part, producer) in &mut producers {
                    for _ in 0..random.u32(20..70) {
                        let batch = batch(&mut random);
                        if random.bool() {
                            producer.append(&broker, *part, batch).await;
                        } else {
                            append(&broker, *part, batch).await.expect("appended");
                        }
                    }
                }
            });
            if run + 1 < runs {
                if random.bool() {
                    runtime.block_on(broker.close()).expect("an orderly end");
                }
                kill(broker);
                broker = open(runtime, dir.path()).expect("a broker");
            }
        }
        let mut contents: BTreeMap<Part, Content> =
            parts().map(|part| (part, runtime.block_on(read(&broker, part)).content)).collect();
        // Within a segment, so that what lies before the start is still there.
        let start = runtime.block_on(broker.delete_records(&name("events"), 0, 5)).expect("deleted");
        contents.get_mut(&("events", 0)).expect("there").log_start = start.get();
        let clean = number.is_multiple_of(3);
        if clean {
            runtime.block_on(broker.close()).expect("an orderly end");
        }
        let newest_epoch = leader_epoch(&broker);
        kill(broker);
        Self { dir, clean, newest_epoch, contents, producers }
    }

    /// The files that can be damaged, relative to the directory, by class.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<PathBuf>> {
        let mut classes: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("readable") {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let file = path.file_name().expect("a name").to_string_lossy().into_owned();
                // Of these the whole name tells.
                let extension =
                    path.extension().filter(|extension| *extension != "toml" && *extension != "old");
                let class =
                    extension.map_or(file.clone(), |extension| extension.to_string_lossy().into_owned());
                if file != ".lock" {
                    let path = path.strip_prefix(self.dir.path()).expect("inside").to_owned();
                    classes.entry(class).or_default().push(path);
                }
            }
        }
        for files in classes.values_mut() {
            files.sort();
        }
        classes
    }
}
