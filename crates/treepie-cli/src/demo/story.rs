//! The story: what the demonstration prints, step by step, as it happens.

use serde::Serialize;

use crate::{failure::Result, output::Output};

/// Numbers the steps, and prints each line at once.
pub struct Story<'o> {
    output: &'o mut Output,
    step: u32,
}

#[derive(Serialize)]
struct StepObject<'a> {
    step: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

impl<'o> Story<'o> {
    /// A story before its first step.
    pub fn new(output: &'o mut Output) -> Story<'o> {
        Story { output, step: 0 }
    }

    /// Begins a step.
    pub fn step(&mut self, title: &str) -> Result<()> {
        self.step += 1;
        if self.output.is_json() {
            self.output.object(&StepObject { step: self.step, title: Some(title), text: None })?;
        } else {
            let gap = if self.step == 1 { "" } else { "\n" };
            self.output.line(format!("{gap}{}. {title}", self.step))?;
        }
        self.output.flush()
    }

    /// Prints a line of the step.
    pub fn say(&mut self, text: impl AsRef<str>) -> Result<()> {
        let text = text.as_ref();
        if self.output.is_json() {
            self.output.object(&StepObject { step: self.step, title: None, text: Some(text) })?;
        } else {
            self.output.line(format!("   {text}"))?;
        }
        self.output.flush()
    }

    /// For what prints itself.
    pub fn output(&mut self) -> &mut Output {
        self.output
    }
}
