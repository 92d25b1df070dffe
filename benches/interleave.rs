//! Measures contenders side by side: each does the same work once in every round, in an order that rotates, so that
//! whatever disturbs the machine disturbs all of them. Used by each bench in this directory.
//!
//! Criterion gets the times of the contender it asks for. The ratios printed at the end of a group are of times of the
//! same round: they stay meaningful where the machine's speed drifts during the run.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};

/// One way to do the work of a group.
pub(crate) trait Contender {
    /// How it is called in the report.
    fn name(&self) -> &'static str;
    /// What it is measured against, and not what is measured.
    fn is_baseline(&self) -> bool;
    /// What the work needs; not timed.
    fn prepare(&mut self);
    /// The work, and the wait for its end; timed.
    fn work(&mut self);
}

/// Measures the contenders; each one's work moves `bytes`.
pub(crate) fn compare(
    criterion: &mut Criterion,
    group_name: &str,
    bytes: u64,
    contenders: &mut [Box<dyn Contender + '_>],
) {
    let mut rounds: Vec<Vec<Duration>> = Vec::new();
    let mut group = criterion.benchmark_group(group_name);
    // Every contender works during each one's turn, so the whole takes as many times longer as there are of them.
    group.throughput(Throughput::Bytes(bytes)).sample_size(10).measurement_time(Duration::from_secs(3));
    for index in 0..contenders.len() {
        group.bench_function(contenders[index].name(), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut sum = Duration::ZERO;
                for _ in 0..iterations {
                    let times = round(contenders, rounds.len());
                    sum += times[index];
                    rounds.push(times);
                }
                sum
            });
        });
    }
    group.finish();
    report(contenders, &rounds);
}

/// Everyone's time, by index; the one that is first rotates.
fn round(contenders: &mut [Box<dyn Contender + '_>], number: usize) -> Vec<Duration> {
    let mut times = vec![Duration::ZERO; contenders.len()];
    for turn in 0..contenders.len() {
        let index = (number + turn) % contenders.len();
        contenders[index].prepare();
        let start = Instant::now();
        contenders[index].work();
        times[index] = start.elapsed();
    }
    times
}

/// Prints what share of each baseline's throughput each of the others reaches.
fn report(contenders: &[Box<dyn Contender + '_>], rounds: &[Vec<Duration>]) {
    if cfg!(debug_assertions) {
        println!("no shares: this is a debug build");
        return;
    }
    for (index, contender) in contenders.iter().enumerate().filter(|(_, contender)| !contender.is_baseline())
    {
        for (base, baseline) in contenders.iter().enumerate().filter(|(_, contender)| contender.is_baseline())
        {
            let mut shares: Vec<f64> =
                rounds.iter().map(|times| times[base].as_secs_f64() / times[index].as_secs_f64()).collect();
            shares.sort_by(f64::total_cmp);
            let at = |percent: usize| shares.get(shares.len().saturating_sub(1) * percent / 100).copied();
            if let (Some(low), Some(median), Some(high)) = (at(25), at(50), at(75)) {
                println!(
                    "{}: {median:.3} of the throughput of {} (middle half {low:.3} to {high:.3}, {} rounds)",
                    contender.name(),
                    baseline.name(),
                    shares.len(),
                );
            }
        }
    }
}
