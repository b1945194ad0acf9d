//! What is changed of every request to a direct model.

use super::models::Resolver;
use super::panel::params;
use crate::config::json_schema::OURS;
use crate::config::problem::Path;
use crate::config::schema::{self, Preset};
use crate::upstream::{Rules, Unsupported};

/// What goes without saying where the server only knows the older name.
const OLDER_NAME: (&str, &str) = ("max_completion_tokens", "max_tokens");

impl Resolver<'_> {
    /// The rules that are written at `path`, after those of the preset.
    pub(super) fn request(&mut self, rules: &schema::Rules, preset: Option<Preset>, path: &Path) -> Rules {
        for (i, name) in rules.drop.iter().enumerate() {
            self.free(name, path.key("drop").index(i));
        }
        for (from, to) in &rules.rename.0 {
            self.free(to, path.key("rename").key(from));
            if rules.rename.0.contains_key(to) {
                let what =
                    format!("`{to}` is renamed itself: say in one step what each field is called there");
                self.report.add(path.key("rename").key(from), what);
            }
        }
        let (from, to) = OLDER_NAME;
        let is_known = matches!(preset, Some(Preset::Ollama | Preset::LlamaCpp));
        let older =
            (is_known && !rules.rename.0.contains_key(from)).then(|| (from.to_owned(), to.to_owned()));
        let written = rules.rename.0.iter().map(|(from, to)| (from.clone(), to.clone()));
        Rules {
            rename: older.into_iter().chain(written).collect(),
            drop: rules.drop.clone(),
            set: params(&rules.set),
            unsupported: match rules.unsupported {
                schema::Unsupported::Reject => Unsupported::Reject,
                schema::Unsupported::Drop => Unsupported::Drop,
            },
        }
    }

    /// Reports a field that is not the operator's to touch.
    fn free(&mut self, name: &str, path: Path) {
        if let Some((name, why)) = OURS.iter().find(|(ours, _)| *ours == name) {
            self.report.add(path, format!("`{name}` may not be touched: it {why}"));
        }
    }
}
