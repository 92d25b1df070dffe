//! A call for each request, so many of them under way at a time.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::stream::until;
use super::{Load, Next};
use crate::cli::bench::pacer::Pacer;
use crate::cli::failure::Failure;
use crate::client::Client;

pub(super) async fn run(client: &Client, load: &mut Load, pacer: &mut Pacer) -> Result<(), Failure> {
    let in_flight = load.plan.in_flight as usize;
    let log = client.log_service();
    let mut calls = FuturesUnordered::new();
    let mut over = false;
    loop {
        let mut wait = None;
        while !over && wait.is_none() && calls.len() < in_flight {
            match load.next()? {
                Next::Send(sent, parcel) => {
                    let (mut log, request) = (log.clone(), load.request(&sent, parcel));
                    calls.push(async move { (sent, log.produce(request).await) });
                }
                Next::Wait { now_ns, due_ns } => wait = Some((now_ns, due_ns)),
                Next::Over => over = true,
            }
        }
        if over && calls.is_empty() {
            return Ok(());
        }
        tokio::select! {
            Some((sent, answer)) = calls.next() => {
                let answer = answer.map_err(|status| client.error_of(&status))?;
                load.answered(&sent, answer.into_inner())?;
            }
            waited = until(pacer, wait), if wait.is_some() => waited?,
        }
    }
}
