//! Tool calls.

/// The tool calls of one message, in an order of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Calls {
    names: Box<str>,
    canonical: Box<str>,
}

impl Calls {
    /// Whether they call the same tools, each as often.
    pub fn same_names(&self, other: &Self) -> bool {
        self.names == other.names
    }

    /// Whether they are the same calls with the same arguments.
    pub fn same(&self, other: &Self) -> bool {
        self == other
    }
}
