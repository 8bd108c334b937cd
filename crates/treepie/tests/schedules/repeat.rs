//! The seed alone makes the schedule: a failure can be repeated.

use treepie::Durability;

use crate::{
    checkpoint::checkpoint,
    directory::directory,
    explore::{seeds, trace},
    mixed::mixed,
    poison::poison,
    pressure::pressure,
    readers::readers,
    submit::submit,
    world::prepare,
    writers::writers,
};

#[test]
fn the_same_seeds_give_the_same_schedules() {
    prepare();
    let scenarios: [fn(); 8] = [
        writers,
        || readers(Durability::Sync),
        checkpoint,
        poison,
        submit,
        pressure,
        mixed,
        directory,
    ];
    for (index, scenario) in scenarios.into_iter().enumerate() {
        let seeds = seeds("repeat", 100);
        let first = trace(seeds.clone(), scenario);
        assert_eq!(trace(seeds, scenario), first, "scenario {index}");
    }
}
