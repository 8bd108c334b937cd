//! `demo`: what the engine promises, shown on the table of Unicode characters.
//!
//! Every step checks what it shows; the command fails when anything is not as promised.
//!
//! | Step | File       | Shows                                                      |
//! |-----:|------------|------------------------------------------------------------|
//! |  1–3 | `table`    | Durable batches over three trees, look-ups, prefix scans   |
//! |    4 | `versions` | A snapshot stays as it is while a tree is rewritten        |
//! |    5 | `merge`    | Many threads share records and disk writes                 |
//! |    6 | `kill`     | A killed process loses nothing that it acknowledged        |
//! |    7 | `backup`   | A backup beside a writer, a mistake undone, a drill        |
//! |    8 | `cluster`  | Three nodes, their leader killed; a new one; equal pages   |
//! | 9–10 | here       | The check and the report; where the files are              |

mod backup;
mod cluster;
mod folder;
mod kill;
mod merge;
mod story;
mod table;
mod versions;
pub mod writer;

use treepie::Database;

use crate::{
    arguments::Demo,
    commands::report,
    failure::{Failure, Result},
    output::{Output, grouped},
};
use folder::Folder;
use story::Story;

/// Runs the demonstration.
pub fn run(arguments: &Demo, output: &mut Output) -> Result<()> {
    let folder = Folder::prepare(&arguments.dir)?;
    let mut story = Story::new(output);
    let db = Database::open(folder.unicode())?;
    table::load(&db, &mut story)?;
    table::look_up(&db, &mut story)?;
    table::scan(&db, &mut story)?;
    versions::show(&db, &mut story)?;
    merge::show(&db, &mut story)?;
    kill::show(&folder.killed(), &mut story)?;
    backup::show(&db, &folder, &mut story)?;
    cluster::show(&folder.cluster(), &mut story)?;
    inspect(&db, &mut story)?;
    db.close()?;
    say_what_to_try(&folder, &mut story)
}

fn inspect(db: &Database, story: &mut Story<'_>) -> Result<()> {
    story.step("Check and report of the database of characters")?;
    let check = db.check()?;
    promise(check.is_clean(), || format!("the check found {:?}", check.problems))?;
    story.say(format!(
        "Every page verified, no damage: {} entries in {} pages.",
        grouped(check.entries),
        grouped(check.tree_pages),
    ))?;
    report::print(&db.report()?, story.output())
}

fn say_what_to_try(folder: &Folder, story: &mut Story<'_>) -> Result<()> {
    story.step("Everything was as promised. The files are yours to look at")?;
    let command = std::env::args().next().unwrap_or_else(|| "treepie".to_owned());
    let (unicode, killed, backups) = (folder.unicode(), folder.killed(), folder.backups());
    let (unicode, killed, backups) = (unicode.display(), killed.display(), backups.display());
    for arguments in [
        format!("get {unicode} characters 002603"),
        format!("scan {unicode} names --prefix \"GREEK SMALL LETTER\" --reverse --limit 5"),
        format!("scan {unicode} categories --prefix \"Sc \" --json"),
        format!("trees {unicode}"),
        format!("check {unicode}"),
        format!("page {unicode} 18"),
        format!("journal {killed} --limit 10"),
        format!("report {killed}"),
        format!("snapshots {backups}"),
        format!("drill {backups}"),
        format!("backup {unicode} - | {command} verify -"),
    ] {
        story.say(format!("{command} {arguments}"))?;
    }
    Ok(())
}

/// Ends the demonstration when something that was promised does not hold.
fn promise(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::Demo(what())) }
}
