//! A broker of the run's own, which may be stopped and started again: a process that serves a directory made for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::hosted::Hosted;
use super::process::Process;
use super::round::Subject;
use crate::cli::failure::Failure;

/// The fields are dropped in this order: first the process, then what it has open.
#[derive(Debug)]
pub(super) struct Own {
    hosted: Option<Hosted>,
    config: Option<PathBuf>,
    pub(super) directory: Directory,
}

impl Own {
    /// In a directory made for it in `parent`, or in the first usual place. It does not run yet.
    ///
    /// # Errors
    /// When no directory can be made.
    pub(super) fn make(parent: Option<&Path>, config: Option<&Path>) -> Result<Self, Failure> {
        let directory = Directory::make(parent)?;
        Ok(Self { hosted: None, config: config.map(Path::to_owned), directory })
    }

    /// Where the broker keeps everything.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts it, unless it runs. Returns how long that took: from before there was a process until it served.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) async fn start(&mut self) -> Result<Duration, Failure> {
        let began = Instant::now();
        if self.hosted.is_none() {
            self.hosted = Some(Hosted::broker(&self.data_dir(), self.config.as_deref()).await?);
        }
        Ok(began.elapsed())
    }

    /// Has it end in an orderly way, if it runs.
    ///
    /// # Errors
    /// When it does not end well.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        match self.hosted.take() {
            Some(hosted) => hosted.stop().await,
            None => Ok(()),
        }
    }

    /// The broker as it runs.
    ///
    /// # Errors
    /// That it does not.
    pub(super) fn subject(&self) -> Result<Subject<'_>, Failure> {
        let stopped = || Failure::Failed("the broker to be measured does not run".to_owned());
        let hosted = self.hosted.as_ref().ok_or_else(stopped)?;
        Ok(Subject {
            url: &hosted.url,
            process: Some(Process::Id(hosted.id())),
            directory: Some(&self.directory),
        })
    }
}
