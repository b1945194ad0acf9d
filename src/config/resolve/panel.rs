//! Members of a panel.

use bytes::Bytes;
use serde_json::Number;

use super::models::Resolver;
use crate::config::problem::Path;
use crate::config::schema;
use crate::ensemble::{Member, Params};

impl Resolver<'_> {
    pub(super) fn panel(&mut self, members: &[schema::Member], path: &Path) -> Option<Vec<Member>> {
        let most = self.file.limits.max_panel;
        // Each member is resolved even when one is not, to report them all.
        let resolved: Vec<Option<Member>> =
            members.iter().enumerate().map(|(i, member)| self.member(member, &path.index(i))).collect();
        if members.len() > most {
            self.report.add(
                path.clone(),
                format!("has {} members, `limits.max_panel` allows {most}", members.len()),
            );
        }
        resolved.into_iter().collect()
    }

    fn member(&mut self, member: &schema::Member, path: &Path) -> Option<Member> {
        let model = self.direct(&member.model, path.key("model"));
        let mut params = params(&member.params);
        for (name, value) in [("temperature", &member.temperature), ("seed", &member.seed)] {
            let Some(value) = value else { continue };
            if member.params.0.contains_key(name) {
                let what = format!("cannot stand beside `params.{name}`: choose one");
                self.report.add(path.key(name), what);
            }
            params.push((name.to_owned(), number(value)));
        }
        Some(Member {
            model: model?,
            weight: member.weight,
            params,
            system: member.system.clone(),
            required: member.required,
        })
    }
}

/// Request fields as JSON text.
pub(super) fn params(params: &schema::Params) -> Params {
    params.0.iter().map(|(name, value)| (name.clone(), Bytes::from(value.to_string()))).collect()
}

fn number(number: &Number) -> Bytes {
    Bytes::from(number.to_string())
}
