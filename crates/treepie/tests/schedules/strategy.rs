//! Who runs next: strategies, each drawn from the seed of one schedule, so that the seed alone
//! repeats it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use treepie_testkit::{Rng, mix};

/// Where strategies are, for whoever reports a failure.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<[AtomicU64; 2]>);

impl Progress {
    /// The seed of the schedule that runs.
    pub fn seed(&self) -> u64 {
        self.0[0].load(Relaxed)
    }

    /// A hash of all decisions so far.
    pub fn trace(&self) -> u64 {
        self.0[1].load(Relaxed)
    }

    fn decided(&self, what: u64) {
        self.0[1].store(mix(self.trace(), what), Relaxed);
    }
}

/// Goes through the schedules of some seeds.
#[derive(Debug)]
pub struct Strategies {
    seeds: std::vec::IntoIter<u64>,
    progress: Progress,
    rng: Rng,
    strategy: Strategy,
}

#[derive(Debug)]
enum Strategy {
    /// Anyone, at every decision.
    Anyone,
    /// Who runs goes on, but for one decision in so many.
    Sticky(u64),
    /// Who has the highest priority, until it waits; at a few decisions the one that runs falls
    /// behind all others (Burckhardt and others, "A randomized scheduler with probabilistic
    /// guarantees of finding bugs", 2010).
    Priorities { priorities: Vec<i64>, lowest: i64, falls: Vec<u64>, decisions: u64 },
}

/// Decisions of which one lets somebody else run.
const RARITIES: [u64; 5] = [3, 10, 30, 100, 300];
/// Decisions within which priorities fall.
const HORIZONS: [u64; 4] = [30, 150, 600, 2500];
const FALLS_MAX: u64 = 4;

impl Strategies {
    pub fn new(seeds: Vec<u64>) -> Strategies {
        let seeds = seeds.into_iter();
        let progress = Progress::default();
        Strategies { seeds, progress, rng: Rng::new(0), strategy: Strategy::Anyone }
    }

    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl Strategy {
    fn draw(rng: &mut Rng) -> Strategy {
        match rng.below(4) {
            0 => Strategy::Anyone,
            1 => Strategy::Sticky(*rng.pick(&RARITIES)),
            _ => {
                let horizon = HORIZONS[rng.index(HORIZONS.len())];
                let falls = (0..rng.below(FALLS_MAX + 1)).map(|_| rng.below(horizon)).collect();
                Strategy::Priorities { priorities: Vec::new(), lowest: 0, falls, decisions: 0 }
            }
        }
    }

    fn choose(
        &mut self,
        rng: &mut Rng,
        tasks: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> TaskId {
        let anyone = |rng: &mut Rng| tasks[rng.index(tasks.len())].id();
        match self {
            Strategy::Anyone => anyone(rng),
            Strategy::Sticky(rarity) => {
                let stays = tasks.iter().map(|task| task.id()).find(|id| Some(*id) == current);
                match stays.filter(|_| !is_yielding && !rng.chance(1, *rarity)) {
                    Some(id) => id,
                    None => anyone(rng),
                }
            }
            Strategy::Priorities { priorities, lowest, falls, decisions } => {
                let highest_id = tasks.iter().map(|task| usize::from(task.id())).max();
                while priorities.len() <= highest_id.expect("somebody can run") {
                    priorities.push(i64::try_from(rng.below(1 << 40)).expect("40 bits") + 1);
                }
                *decisions += 1;
                if let Some(current) = current
                    && (is_yielding || falls.contains(decisions))
                {
                    *lowest -= 1;
                    priorities[usize::from(current)] = *lowest;
                }
                let first = tasks.iter().max_by_key(|task| priorities[usize::from(task.id())]);
                first.expect("somebody can run").id()
            }
        }
    }
}

impl Scheduler for Strategies {
    fn new_execution(&mut self) -> Option<Schedule> {
        let seed = self.seeds.next()?;
        self.progress.0[0].store(seed, Relaxed);
        self.rng = Rng::new(mix(seed, 1));
        self.strategy = Strategy::draw(&mut self.rng);
        Some(Schedule::new(seed))
    }

    fn next_task(
        &mut self,
        tasks: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        if let [only] = tasks {
            return Some(only.id());
        }
        let chosen = self.strategy.choose(&mut self.rng, tasks, current, is_yielding);
        self.progress.decided((tasks.len() << 32 | usize::from(chosen)) as u64);
        Some(chosen)
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }
}
