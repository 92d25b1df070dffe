//! Positions, and the start of a log.

use crate::broker::testing::{NOW_MS, Place, create, name, produce, record};
use crate::broker::{AppendTerms, Broker, BrokerError, Caller, Position, ProduceRecord, Target};
use crate::record::Codec;

async fn resolve(broker: &Broker, position: Position) -> Result<(i64, Option<i64>), BrokerError> {
    let resolved = broker.resolve(&name("t"), 0, position).await?;
    Ok((resolved.offset.get(), resolved.timestamp_ms))
}

fn range_of(error: &BrokerError) -> (i64, i64, i64) {
    match error {
        BrokerError::OffsetOutOfRange { offset, log_start_offset, high_watermark, .. } => {
            (*offset, log_start_offset.get(), high_watermark.get())
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn positions_become_offsets() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    let at = |ms| ProduceRecord { timestamp_ms: Some(ms), ..record(None, "x") };
    for records in [vec![at(NOW_MS), at(NOW_MS + 10)], vec![at(NOW_MS + 20)]] {
        let results = broker
            .start_produce(
                Caller::Client,
                &name("t"),
                Target::Partition(0, AppendTerms::default()),
                records,
                Codec::None,
            )
            .await;
        for (_, pending) in results.expect("valid") {
            pending.expect("valid").wait().await.expect("appended");
        }
    }
    for (position, expected) in [
        (Position::Earliest, (0, None)),
        (Position::Latest, (3, None)),
        (Position::Offset(1), (1, None)),
        (Position::Offset(3), (3, None)),
        (Position::TimestampMs(0), (0, Some(NOW_MS))),
        (Position::TimestampMs(NOW_MS + 1), (1, Some(NOW_MS + 10))),
        (Position::TimestampMs(NOW_MS + 20), (2, Some(NOW_MS + 20))),
        (Position::TimestampMs(NOW_MS + 21), (3, None)),
    ] {
        assert_eq!(resolve(&broker, position).await.expect("valid"), expected, "{position:?}");
    }
    for offset in [-1, 4, i64::MIN] {
        let error = resolve(&broker, Position::Offset(offset)).await.expect_err("not there");
        assert_eq!(range_of(&error), (offset, 0, 3));
    }
}

#[tokio::test]
async fn deleted_records_are_out_of_range() {
    let place = Place::new();
    let broker = place.open();
    create(&broker, "t", 1, &[]).await;
    produce(&broker, "t", 0, &["a", "b", "c"]).await;
    assert_eq!(broker.delete_records(&name("t"), 0, 2).await.expect("deleted").get(), 2);
    assert_eq!(resolve(&broker, Position::Earliest).await.expect("valid").0, 2);
    assert_eq!(range_of(&resolve(&broker, Position::Offset(1)).await.expect_err("deleted")), (1, 2, 3));
    for before in [4, -2] {
        let error = broker.delete_records(&name("t"), 0, before).await.expect_err("not there");
        assert_eq!(range_of(&error), (before, 2, 3));
    }
    assert_eq!(broker.delete_records(&name("t"), 0, -1).await.expect("deleted").get(), 3);
    assert_eq!(produce(&broker, "t", 0, &["d"]).await.log_start_offset.get(), 3);
    let broker = place.reopen(broker).await;
    assert_eq!(resolve(&broker, Position::Earliest).await.expect("valid").0, 3);
}
