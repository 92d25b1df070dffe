//! Ends and starts of the machine, and what has to be there afterwards.

use super::super::super::verify::Severity;
use super::super::verify::verified;
use super::*;

impl Simulation {
    pub(super) fn restart(&mut self) {
        self.disk.set_faults(Faults::default());
        self.disk.set_room(None);
        self.write();
        self.sync();
        let up = self.up();
        up.crew.syncer.flush_lazy();
        self.upkeep();
        let up = self.up.take().unwrap();
        up.store.finish().unwrap();
        drop(up);
        self.hear();
        self.start();
        assert!(self.up().store.was_clean());
    }

    pub(in super::super) fn kill(&mut self) {
        self.stop();
        self.start();
    }

    pub(super) fn cut_power(&mut self) {
        self.hear();
        self.stop();
        self.power_cuts += 1;
        self.disk.cut_power();
        self.forget_cached();
        self.start();
    }

    pub(in super::super) fn forget_cached(&mut self) {
        self.producers.iter_mut().for_each(SimProducer::lose_power);
        // What was only in the page cache may be gone, from any place on: with `os`, acknowledged or not.
        for model in &mut self.models {
            if model.durability == Durability::Os {
                model.visible = 0;
                model.seen.clear();
            }
        }
    }

    pub(in super::super) fn stop(&mut self) {
        self.disk.set_faults(Faults::default());
        self.disk.set_room(None);
        self.hear();
        self.up = None;
        // What was under way is answered by its end.
        self.hear();
    }

    /// The store again, with its logs.
    pub(in super::super) fn try_start(&mut self) -> Result<(), String> {
        let (store, crew) = self.assemble()?;
        let logs = store.open_logs(&self.specs).into_iter().collect::<Result<Vec<_>, _>>();
        let logs = logs.map_err(|error| error.to_string())?;
        let upkeep = store.prepare().map_err(|error| error.to_string())?;
        self.up = Some(Up { store, crew, upkeep, logs });
        self.producers.iter_mut().for_each(SimProducer::reconnect);
        Ok(())
    }

    /// The store again, and everything that was promised.
    pub(in super::super) fn start(&mut self) {
        let fs = Arc::new(self.disk.boot());
        let report = verified(fs, Path::new("data"), &self.specs, &self.config);
        assert_eq!(report.count(Severity::Error), 0, "only notes: {:#?}", report.findings);
        self.try_start().unwrap_or_else(|error| panic!("{error}"));
        self.check();
    }

    /// Holds all logs against what was promised, right after a start.
    pub(in super::super) fn check(&mut self) {
        for log in 0..self.models.len() {
            let handle = &self.up.as_ref().unwrap().logs[log];
            let end = handle.durable_offset().get();
            let model = &self.models[log];
            // With `os`, a power cut may have taken what was deleted and more.
            let start =
                if model.durability == Durability::Os { model.log_start.min(end) } else { model.log_start };
            let found = handle.log_start_offset().get();
            assert!(
                found >= start,
                "log {log} starts with {found}: what was deleted below {start} came back"
            );
            assert!(end >= model.visible, "log {log} ends with {end}, {} was visible", model.visible);
            let from = handle.log_start_offset().get();
            let found = self.batches(log, from, 2_000);
            let model = &mut self.models[log];
            model.log_start = from;
            if model.durability == Durability::Os {
                // A power cut may have taken the last ones.
                model.acknowledged.retain(|offset, _| *offset < end);
            }
            model.check(&found, from, end);
            // What has come back is there to stay, acknowledged or not.
            model.acknowledged = found.clone();
            model.seen = found;
            model.visible = end;
        }
    }
}
