//! Sorted.
use std::time::Instant;
fn main() -> treepie::Result<()> {
    let n: u64 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(1_000_000);
    let batch: u64 = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(100_000);
    let dir = tempfile::tempdir_in(".").expect("dir");
    let db = treepie::Database::open(dir.path().join("db"))?;
    let mut x = 88172645463325252u64;
    let vals: Vec<u8> = (0..1<<20).map(|_| { x ^= x << 13; x ^= x >> 7; x ^= x << 17; x as u8 }).collect();
    let t = Instant::now();
    let mut i = 0; let (mut a, mut b) = (0.0, 0.0);
    while i < n {
        let t1 = Instant::now();
        let mut tx = db.begin_write()?;
        { let mut tr = tx.tree("s")?; for j in i..(i+batch).min(n) { let mut k=*b"0000000000000000--------"; k[16..].copy_from_slice(&j.to_be_bytes()); let o = (j.wrapping_mul(7919) % ((1<<20) - 150)) as usize; tr.insert(k, &vals[o..o+150])?; } }
        a += t1.elapsed().as_secs_f64();
        let t1 = Instant::now();
        tx.commit()?;
        b += t1.elapsed().as_secs_f64();
        i += batch;
    }
    println!("sorted load {:.0}/s run {a:.3} commit {b:.3}", n as f64 / t.elapsed().as_secs_f64());
    println!("{:?}", db.stats());
    let t = Instant::now();
    db.close()?;
    println!("close {:?}", t.elapsed());
    Ok(())
}
