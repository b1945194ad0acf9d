//! Where the record of every run goes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the record of every run goes, besides the log: one for each, however it ended. Requests never wait for it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Decisions {
    /// A file to which they are appended, one JSON object a line.
    pub file: Option<DecisionFile>,
    /// A file of this process's own in which the runs that go on are kept, without texts. When the process is killed, the
    /// next one records them from there: who was asked, and what had been answered and billed.
    #[schemars(length(min = 1))]
    pub journal: Option<String>,
    /// Whether they go to standard output, between the log's lines.
    pub stdout: bool,
    /// How many of the newest are kept in memory for those who ask; 0 keeps none.
    #[schemars(range(min = 0, max = 100_000))]
    pub ring: usize,
    /// How much memory these may take, in bytes; the oldest go where there is no room.
    #[schemars(range(min = 1))]
    pub ring_bytes: usize,
    /// Whether they hold texts: the last user message, what members and judges said, the answer.
    pub include_content: bool,
    /// How much is kept of each text, in bytes.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_content_bytes: usize,
}

impl Default for Decisions {
    fn default() -> Self {
        Self {
            file: None,
            journal: None,
            stdout: false,
            ring: 1000,
            ring_bytes: 64 * 1024 * 1024,
            include_content: false,
            max_content_bytes: 4096,
        }
    }
}

/// A file of decisions.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub struct DecisionFile {
    /// Where it is. When it is renamed or removed, a new one is begun.
    #[schemars(length(min = 1))]
    pub path: String,
    /// Before it grows past so many bytes, it is renamed to the same name with `.1` behind it, in the place of what was
    /// there. Default: it grows until somebody renames it.
    #[schemars(range(min = 65_536))]
    pub max_bytes: Option<u64>,
}
