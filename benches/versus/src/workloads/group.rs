//! Groups of workloads, so that parts of a run can be asked for by one name.

use clap::ValueEnum;

use crate::workloads::Workload;

/// The workloads that a name on the command line stands for: one of them, or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(Vec<Workload>);

/// A group, its workloads by name, and minutes per engine at the sizes that are the default.
struct Group {
    name: &'static str,
    minutes: f32,
    workloads: &'static [&'static str],
}

const GROUPS: &[Group] = &[
    Group { name: "loads", minutes: 2.0, workloads: &["load-sorted", "load-random"] },
    Group {
        name: "reads",
        minutes: 2.0,
        workloads: &["get-1", "get-2", "scan-full", "scan-10", "scan-prefix"],
    },
    Group { name: "beside", minutes: 1.5, workloads: &["get-beside-put-1", "get-beside-put-1000"] },
    Group { name: "writes", minutes: 2.0, workloads: &["puts-1", "batch-1000", "batch-10000"] },
    Group {
        name: "threads",
        minutes: 2.5,
        workloads: &[
            "puts-1",
            "puts-8",
            "puts-64",
            "puts-256",
            "combined-1",
            "combined-8",
            "combined-64",
            "combined-256",
            "submit-2",
        ],
    },
    Group {
        name: "checkpoint",
        minutes: 1.0,
        workloads: &["checkpoint-put-1", "checkpoint-batch-1000"],
    },
    Group { name: "values", minutes: 1.0, workloads: &["large-64k", "large-1m", "large-4m"] },
    Group {
        name: "backups",
        minutes: 3.0,
        workloads: &[
            "backup",
            "backup-file",
            "restore",
            "increment",
            "backup-beside-put-1",
            "backup-beside-put-64",
            "backup-memory",
        ],
    },
    Group { name: "churn", minutes: 4.0, workloads: &["churn"] },
    Group { name: "recovery", minutes: 1.0, workloads: &["open-after-kill"] },
];

impl Selection {
    /// What a name stands for.
    pub fn parse(name: &str) -> Result<Selection, String> {
        if let Some(group) = GROUPS.iter().find(|group| group.name == name) {
            let one = |name: &&str| Workload::from_str(name, false);
            return Ok(Selection(group.workloads.iter().map(one).collect::<Result<_, _>>()?));
        }
        let workload = Workload::from_str(name, false)
            .map_err(|_| "there is no such workload or group; --list names them")?;
        Ok(Selection(vec![workload]))
    }

    /// Whether a workload is among them.
    pub fn contains(&self, workload: Workload) -> bool {
        self.0.contains(&workload)
    }
}

/// All groups and workloads, for `--list`.
pub fn list() -> String {
    let mut text = String::from("Groups, with rough minutes per engine at the default sizes:\n");
    for Group { name, minutes, workloads } in GROUPS {
        text.push_str(&format!("  {name:<12} {minutes:>4}  {}\n", workloads.join(", ")));
    }
    text.push_str("\nWorkloads, in the order in which they run:\n");
    for value in Workload::value_variants().iter().filter_map(Workload::to_possible_value) {
        let about = value.get_help().map(ToString::to_string).unwrap_or_default();
        text.push_str(&format!("  {:<22} {about}\n", value.get_name()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_names_workloads_that_exist() {
        for group in GROUPS {
            assert!(Selection::parse(group.name).is_ok(), "{}", group.name);
        }
        assert!(Selection::parse("reeds").is_err());
    }

    #[test]
    fn every_workload_is_in_a_group_and_in_the_list() {
        for workload in Workload::value_variants() {
            let all = GROUPS.iter().filter_map(|group| Selection::parse(group.name).ok());
            assert!(all.into_iter().any(|group| group.contains(*workload)), "{workload:?}");
            let name = workload.to_possible_value().unwrap();
            assert!(list().contains(&format!("  {} ", name.get_name())), "{workload:?}");
        }
    }
}
