//! Roll-outs that were ended, as the owner of the pods keeps them for the heads to come: by group,
//! what failed, why, and the template that is in force instead. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::generations::Aborted;
use super::template::Template;

/// By group, as they are kept.
pub type Verdicts = BTreeMap<String, String>;

/// How one is kept.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    generation: String,
    why: String,
    back_to: String,
    /// As pods carry it: the last pod of it may go before the next head comes.
    template: String,
}

/// How an ended roll-out is kept.
pub fn written(aborted: &Aborted) -> String {
    let verdict = Verdict {
        generation: aborted.generation.clone(),
        why: aborted.why.clone(),
        back_to: aborted.back_to.generation.clone(),
        template: aborted.back_to.carried(),
    };
    // Texts cannot fail to become JSON.
    serde_json::to_string(&verdict).unwrap_or_default()
}

/// What was kept; None: it is none that we wrote.
pub fn read(text: &str) -> Option<Aborted> {
    let verdict: Verdict = serde_json::from_str(text).ok()?;
    Some(Aborted {
        back_to: Template::from_carried(&verdict.template, &verdict.back_to)?,
        generation: verdict.generation,
        why: verdict.why,
    })
}

/// What has to be written where `kept` is there; None: it is taken away.
pub fn changes<'a>(kept: &'a Verdicts, found: &'a Verdicts) -> BTreeMap<&'a str, Option<&'a str>> {
    let outdated = kept.keys().filter(|group| !found.contains_key(*group));
    let outdated = outdated.map(|group| (group.as_str(), None));
    let news = found
        .iter()
        .filter(|(group, text)| kept.get(*group) != Some(*text));
    let news = news.map(|(group, text)| (group.as_str(), Some(text.as_str())));
    outdated.chain(news).collect()
}
