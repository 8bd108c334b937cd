//! Smoke.
use std::time::Instant;
fn rng(x: &mut u64) -> u64 {
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    x.wrapping_mul(0x2545F4914F6CDD1D)
}
fn key(n: u64) -> [u8; 24] {
    let mut k = [0; 24];
    let h = n.wrapping_mul(0x9E3779B97F4A7C15);
    k[..8].copy_from_slice(&(h ^ (h >> 29)).wrapping_mul(0xBF58476D1CE4E5B9).to_be_bytes());
    k[16..].copy_from_slice(&n.to_be_bytes());
    k
}
fn main() -> treepie::Result<()> {
    let n: u64 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(200_000);
    let batch: u64 = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(1000);
    let dir = tempfile::tempdir_in(".").expect("dir");
    let db = treepie::Database::open(dir.path().join("db"))?;
    let mut seed = 7u64;
    let vals: Vec<u8> = (0..1 << 20).map(|_| rng(&mut seed) as u8).collect();
    let val = |n: u64| {
        let o = (n.wrapping_mul(7919) % ((1 << 20) - 150)) as usize;
        &vals[o..o + 150]
    };
    let t = Instant::now();
    let mut i = 0;
    while i < n {
        db.write(|tx| {
            let mut tr = tx.tree("t")?;
            for j in i..(i + batch).min(n) {
                tr.insert(key(j), val(j))?;
            }
            Ok(())
        })?;
        i += batch;
    }
    println!("random load {:.0}/s", n as f64 / t.elapsed().as_secs_f64());
    println!("{:?}", db.stats());
    let t = Instant::now();
    db.checkpoint()?;
    println!("checkpoint {:?}", t.elapsed());
    let s = db.read()?;
    let tree = s.tree("t")?;
    for round in 0..2 {
        let mut x = 88172645463325252u64;
        let m = 1_000_000;
        let t = Instant::now();
        for _ in 0..m {
            let k = rng(&mut x) % n;
            assert!(tree.get(key(k))?.is_some());
        }
        println!("{round} gets {:.0}/s", m as f64 / t.elapsed().as_secs_f64());
        let t = Instant::now();
        let mut c = 0u64;
        for e in tree.iter() {
            let (_, v) = e?;
            c += u64::from(v[0]);
        }
        println!("scan {:.0}/s {}", n as f64 / t.elapsed().as_secs_f64(), c / 7);
        let t = Instant::now();
        let m = 300_000;
        for _ in 0..m {
            let k = key(rng(&mut x) % n);
            for e in tree.range(&k[..]..).take(10) {
                let (_, v) = e?;
                c += u64::from(v[0]);
            }
        }
        println!("scan10 {:.0}/s {}", m as f64 / t.elapsed().as_secs_f64(), c / 7);
    }
    let t = Instant::now();
    let mut i = 0;
    while i < n {
        db.write(|tx| {
            let mut tr = tx.tree("s")?;
            for j in i..(i + batch).min(n) {
                let mut k = [0; 24];
                k[16..].copy_from_slice(&j.to_be_bytes());
                tr.insert(k, val(j))?;
            }
            Ok(())
        })?;
        i += batch;
    }
    println!("sorted load {:.0}/s", n as f64 / t.elapsed().as_secs_f64());
    let t = Instant::now();
    let r = db.check()?;
    println!("check {:?} {} problems {:?}", t.elapsed(), r.problems.len(), r.problems.first());
    let r = db.report()?;
    for t in &r.trees {
        println!(
            "{} {} fill {:.3} pages {}",
            String::from_utf8_lossy(&t.info.name),
            t.info.entries,
            t.leaf_fill,
            t.info.leaf_pages
        );
    }
    println!("{} {} {}", r.data_file_len, r.pages_used, r.pages_free);
    println!("{:?}", db.stats());
    Ok(())
}
