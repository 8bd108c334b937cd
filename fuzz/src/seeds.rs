//! Writes the inputs that a fuzzer begins with: `cargo run --bin seeds -- <folder> <target>`.

use std::{env, fs, io, path::Path};

use treepie_testkit::hostile::{Target, seeds};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, name] = &arguments[..] else {
        return Err(io::Error::other("usage: seeds <folder> <target>"));
    };
    let target = Target::ALL.iter().copied().find(|target| target.name() == name);
    let target = target.ok_or_else(|| io::Error::other(format!("no target {name}")))?;
    fs::create_dir_all(folder)?;
    for (number, bytes) in seeds(target).iter().enumerate() {
        fs::write(Path::new(folder).join(format!("seed-{number:03}")), bytes)?;
    }
    Ok(())
}
