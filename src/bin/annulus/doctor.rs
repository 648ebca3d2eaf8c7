// SPDX-License-Identifier: MPL-2.0
//! `annulus doctor`: asks the machine how it behaves.

use std::ops::ControlFlow;
use std::process::Command;
use std::time::Duration;

use annulus::doctor::gpu::{self, Answer, Survey};
use annulus::{Error, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;

use crate::output;

/// Ask the machine how it behaves
///
/// With --gpu: which facts about GPUs that Annulus rests on hold on the first NVIDIA card, with figures. Needs nothing
/// but the driver, and ends within five minutes whatever the card does. Every question is asked in a process of its own,
/// which is killed at its deadline; the status is 1 if one was not answered to its end, and 2 if there is no card.
#[derive(clap::Args)]
pub struct Args {
    /// Ask an NVIDIA card
    #[arg(long, required = true)]
    gpu: bool,
    /// Ask only these questions
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// No question may take longer than this
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=290))]
    deadline: Option<u64>,
    /// All questions together may not take longer than this; those that are left are not asked
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=290))]
    within: Option<u64>,
    /// Print one object a line
    #[arg(long)]
    json: bool,
    /// Answer one question, for the process that asks them all
    #[arg(long, hide = true, value_name = "NAME", conflicts_with_all = ["only", "deadline", "within", "json", "peer"])]
    ask: Option<String>,
    /// Be the other process of a question about two
    #[arg(long, hide = true)]
    peer: bool,
}

pub fn run(args: &Args) -> Result<u8> {
    let own = std::env::current_exe().map_err(|error| Error::system("finding this program's own file", error))?;
    let again = |arguments: &[&str]| {
        let mut command = Command::new(&own);
        command.args(["doctor", "--gpu"]).args(arguments);
        command
    };
    if args.peer {
        gpu::answer_as_peer()?;
        return Ok(0);
    }
    if let Some(question) = &args.ask {
        gpu::ask(question, || again(&["--peer"]))?;
        return Ok(0);
    }
    let mut survey = Survey::new().only(&args.only)?;
    if let Some(seconds) = args.deadline {
        survey = survey.deadline(Duration::from_secs(seconds));
    }
    if let Some(seconds) = args.within {
        survey = survey.within(Duration::from_secs(seconds));
    }
    let mut answers = Vec::new();
    let mut listening = Ok(ControlFlow::Continue(()));
    let short = survey.run(
        |question| again(&["--ask", question]),
        |answer| {
            if args.json && matches!(listening, Ok(ControlFlow::Continue(()))) {
                listening = output::print(&format!("{}\n", object(&answer)));
            }
            answers.push(answer);
        },
    )?;
    let _ = listening?;
    if !args.json {
        let _ = output::print(&table(&answers))?;
    }
    if !short.is_empty() {
        output::complain(&format!("not answered to their end: {}", short.join(", ")));
    }
    Ok((!short.is_empty()).into())
}

fn object(answer: &Answer) -> serde_json::Value {
    let Answer { question, asked, answer, recalled, .. } = answer;
    let mut object = json!({ "question": question, "asked": asked, "answer": answer });
    if let Some(recalled) = recalled {
        object["recalled"] = json!(recalled.fact);
        object["holds"] = json!(recalled.holds);
    }
    object
}

/// The one table, which is also Markdown.
fn table(answers: &[Answer]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["question", "asked", "answer", "as recalled?"]);
    for answer in answers {
        let recalled = match &answer.recalled {
            None => String::new(),
            Some(recalled) if recalled.holds => format!("yes: {}", recalled.fact),
            Some(recalled) => format!("NO: {}", recalled.fact),
        };
        table.add_row([&answer.question, &answer.asked, &answer.answer, &recalled]);
    }
    format!("{table}\n")
}
