//! What is said of a script that fails: the shortest script that still does, and how to run it again.

use std::{env, fs};

use treepie_testkit::script::{Script, minimise};

/// The message for a script that failed with `what`. `failure` runs a script, and tells what is wrong
/// with it; `tries` bounds how often that is done. `filter` names the tests to run again.
pub fn told(
    script: &Script,
    what: &str,
    filter: &str,
    tries: usize,
    failure: impl Fn(&Script) -> Option<String>,
) -> String {
    let short = minimise(script, tries, |candidate| failure(candidate).is_some());
    let again = failure(&short).unwrap_or_default();
    let (seed, steps) = (script.setup.seed, short.steps.len());
    format!(
        "seed {seed}: {what}\n\
         {steps} steps fail as well ({again}):\n\n{short}\n\
         again: TREEPIE_SEED={seed} cargo test -p treepie --test engine {filter}\n\
         or save the script, and: TREEPIE_SCRIPT=<file> cargo test -p treepie --test engine {filter}"
    )
}

/// The script that a message of [`told`] shows.
///
/// # Panics
/// If it shows none.
pub fn script_of(told: &str) -> Script {
    let text = told.split("\n\n").nth(1).expect("the script stands between empty lines");
    text.parse().unwrap_or_else(|what| panic!("{what}\n{text}"))
}

/// The script in the file that `TREEPIE_SCRIPT` names, where that is set.
///
/// # Panics
/// If it cannot be read.
pub fn script_from_file() -> Option<Script> {
    let path = env::var_os("TREEPIE_SCRIPT")?;
    let text = fs::read_to_string(path).expect("the script can be read");
    Some(text.parse().unwrap_or_else(|what| panic!("{what}")))
}
