//! Every call to the disk fails, once, while a script runs: either nothing has changed, and the call
//! works when it is made again; or the journal is poisoned, and another process finds what the model
//! allows.

use std::time::Instant;

use treepie_testkit::{
    Fault, FaultError,
    tally::{note, thousands},
};

use crate::{
    cuts::seeds,
    model::{Found, Leaves, Model},
    run::{Op, Run, open},
};

/// The fault of the call with a number.
type FaultOf = fn(u64) -> Fault;

/// How calls fail.
fn faults() -> [(&'static str, FaultOf); 3] {
    [
        ("EIO", |k| Fault::nth(k)),
        ("ENOSPC after 5000 bytes", |k| {
            Fault::nth(k).error(FaultError::ENOSPC).after_short_write(5000)
        }),
        ("EIO after it was done", |k| Fault::nth(k).with_effect()),
    ]
}

/// Runs a script whose `k`-th call fails. Returns whether that call was made.
fn run_with(seed: u64, steps: usize, fault: Fault) -> Result<bool, String> {
    let mut run = Run::begin(seed);
    run.disk.fail(fault);
    for step in 0..steps {
        let op = run.plan();
        let Err(error) = run.perform(&op) else { continue };
        run.disk.heal();
        let told = |what: String| format!("step {step}, {op:?} failed with {error}: {what}");
        let next = run.after(&op);
        if matches!(op, Op::Restart) || run.journal().is_poisoned() {
            return after_poison(run, &op, &next).map(|()| true).map_err(told);
        }
        run.perform(&op).map_err(|again| told(format!("again: {again}")))?;
        let failed = run.disk.failed_calls().len();
        let found = run.restart().map_err(|again| told(format!("opening: {again}")))?;
        run.model.compare(&run.model, Leaves::Prefix, &found).map_err(told)?;
        return Ok(failed > 0);
    }
    Ok(!run.disk.failed_calls().is_empty())
}

/// Another process opens it, and the power is cut before and after.
fn after_poison(mut run: Run, op: &Op, next: &Model) -> Result<(), String> {
    let before = run.model.clone();
    let from = before.position(before.checkpoint);
    let check = |found: &Found| before.compare(next, op.leaves(), found);
    let log = run.disk.log();
    let mut player = log.player(run.seed);
    player.advance_to(log.len());
    for draw in 0..4 {
        let opened = open(run.seed, &player.image(draw), from);
        let (_, found) = opened.map_err(|error| format!("opening after a cut: {error}"))?;
        check(&found).map_err(|what| format!("after a cut: {what}"))?;
    }
    let found = run.restart().map_err(|error| format!("opening: {error}"))?;
    check(&found)?;
    let log = run.disk.log();
    let mut player = log.player(run.seed);
    player.advance_to(log.len());
    let (_, again) = open(run.seed, &player.image_of(512, 0), from)
        .map_err(|error| format!("opening after an opening and a cut: {error}"))?;
    let (first, second) = (&found.recovered, &again.recovered);
    if (first.last, first.hard_state) != (second.last, second.hard_state) {
        return Err(format!("{first:?} was found, and after a cut {second:?}"));
    }
    Ok(())
}

#[test]
fn what_a_replica_promised_survives_a_failure_of_every_call() {
    let begin = Instant::now();
    let (mut runs, mut seed_count) = (0, 0);
    for seed in seeds(12) {
        seed_count += 1;
        for (name, fault) in faults() {
            for k in 1.. {
                let result = run_with(seed, 24, fault(k).of_changes());
                let was_made = result.unwrap_or_else(|what| {
                    panic!(
                        "seed {seed}, call {k}, {name}: {what}\n\
                         again: TREEPIE_SEED={seed} cargo test -p treepie --features planted --test log failing"
                    )
                });
                if !was_made {
                    break;
                }
                runs += 1;
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let counts = format!("{} runs of {seed_count} scripts in {seconds:.0} s", thousands(runs));
    note(4, "failing calls, log of consensus", &counts);
    assert!(seed_count == 1 || runs > 1_000, "{counts}");
}
