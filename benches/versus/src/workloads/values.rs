//! Durable large values, one per commit.

use std::path::Path;

use crate::{
    Result,
    contest::Context,
    data::fill,
    engine::{Batch, Engine, Setup},
    measure::{Figure, Limit, Unit},
};

/// Row and length of large values.
pub type Size = (&'static str, usize);
/// 64 KiB.
pub const KIB_64: Size = ("large-64k", 64 << 10);
/// 1 MiB.
pub const MIB_1: Size = ("large-1m", 1 << 20);
/// 4 MiB.
pub const MIB_4: Size = ("large-4m", 4 << 20);

/// Puts values into a database that is empty before the warm-up, under ascending keys.
pub fn puts<E: Engine>(dir: &Path, context: &Context, size: Size) -> Result<Vec<Figure>> {
    let engine = E::open(dir, Setup { large_values: true, ..context.setup })?;
    let figures = turns(context, size, |number, value| {
        engine.write(|batch| batch.put(&number.to_be_bytes(), value))
    })?;
    engine.close()?;
    Ok(figures)
}

/// Writes values for the time of the warm-up, then for that of the turn; either also ends after
/// `--large-mib`. `write` gets the value's number and bytes.
pub fn turns(
    context: &Context,
    (row, len): Size,
    mut write: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<Vec<Figure>> {
    let mut value = vec![0; len];
    fill(context.entries.seed, &mut value);
    let mut number = 0_u64;
    let mut turn = |limit: Limit| -> Result<f64> {
        let first = number;
        let count_max = limit.count.min((context.options.large_mib << 20).div_ceil(len as u64));
        let turn = Limit { count: count_max, ..limit }.start();
        while turn.goes_on(number - first) {
            value[..8].copy_from_slice(&number.to_le_bytes());
            write(number, &value)?;
            number += 1;
        }
        Ok((number - first) as f64 * len as f64 / 1e6 / turn.elapsed().as_secs_f64())
    };
    turn(context.warm_limit)?;
    Ok(vec![Figure::new(row, turn(context.limit)?, Unit::MegabytesPerSecond)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbered_through_and_bounded_in_bytes() {
        let mut context = Context::for_tests(1000);
        context.options.large_mib = 8;
        let mut numbers = Vec::new();
        let figures = turns(&context, MIB_4, |number, value| {
            assert_eq!(value.len(), 4 << 20);
            numbers.push(number);
            Ok(())
        });
        assert_eq!(figures.unwrap().len(), 1);
        assert_eq!(numbers, [0, 1, 2, 3], "two of warm-up, two that count");
    }
}
