//! The configuration as operators may see it.

use serde_json::Value;

use super::super::interpolate::Written;
use super::super::problem::{Path, Segment};
use super::super::schema::File;
use super::super::secret::REDACTED;

/// The whole file, defaults included. A secret is redacted, and a value that came from the environment, which may be
/// one, stands as it is written.
pub(super) fn shown(file: &File, written: &Written) -> Value {
    let mut tree = serde_json::to_value(file).unwrap_or_default();
    for (path, text) in written.iter() {
        if let Some(value) = at(&mut tree, path)
            && *value != REDACTED
        {
            *value = Value::from(text);
        }
    }
    if let Some(Value::Array(models)) = tree.get_mut("models") {
        models.iter_mut().for_each(only_its_kind);
    }
    tree
}

/// Leaves a model the keys of what it is: an ensemble has no use for a direct model's defaults.
fn only_its_kind(model: &mut Value) {
    let Value::Object(keys) = model else {
        return;
    };
    let is_ensemble = keys.get("ensemble").is_some_and(Value::is_object);
    keys.retain(|key, _| match key.as_str() {
        "display_name" => true,
        "ensemble" => is_ensemble,
        // What an ensemble has as well stands in its own mapping.
        _ => !is_ensemble,
    });
}

fn at<'a>(tree: &'a mut Value, path: &Path) -> Option<&'a mut Value> {
    path.segments().iter().try_fold(tree, |node, segment| match segment {
        Segment::Key(key) => node.get_mut(key),
        Segment::Index(index) => node.get_mut(index),
    })
}
