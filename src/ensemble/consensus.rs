//! Who agrees with whom: classes of equal answers, and which of them leads.
//!
//! A candidate without a key abstains: it is in no class, and counts only where all candidates do.

use std::cmp::Ordering;

use super::answer::{Calls, Key, Text};
use super::candidate::Candidate;
use super::strategy::Require;

/// The classes of some candidates.
#[derive(Debug)]
pub(super) struct Tally {
    classes: Vec<Class>,
    leader: Option<usize>,
    rule: Rule,
    /// What those who gave an answer have.
    cast: f64,
    /// What all candidates have, those that abstain included.
    total: f64,
    /// How many gave an answer.
    voters: usize,
}

/// Candidates whose answers count as one.
#[derive(Clone, Debug)]
struct Class {
    /// Their places among the candidates, in panel order.
    places: Vec<usize>,
    standing: Standing,
}

/// How far ahead a class is: by its score, then by its members' weights, then by panel order.
#[derive(Clone, Copy, Debug)]
struct Standing {
    score: f64,
    weight: f64,
    /// The first of its members in panel order.
    first: usize,
}

/// How classes are formed, and by what the leading one leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Equal keys; the best standing leads.
    Equal,
    /// Tool calls: text, then names, then arguments.
    Calls,
    /// Similar texts; the best standing leads.
    Similar,
}

/// A member whose answer may still come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    /// Its place in the panel.
    pub(super) member: usize,
    /// What a class would gain by it.
    pub(super) score: f64,
    /// Its weight.
    pub(super) weight: f64,
}

impl Tally {
    /// Counts candidates, which stand in panel order, by these scores; texts count as one answer from
    /// `similarity` on.
    pub(super) fn of(candidates: &[Candidate], scores: &[f64], similarity: f64) -> Self {
        let ballots: Vec<Ballot<'_>> = candidates
            .iter()
            .zip(scores)
            .enumerate()
            .filter_map(|(place, (candidate, score))| Ballot::of(place, candidate, *score))
            .collect();
        let rule = match ballots.first().map(|ballot| ballot.key) {
            Some(Key::Text(_)) => Rule::Similar,
            Some(Key::Calls(_) | Key::Prose(_)) => Rule::Calls,
            _ => Rule::Equal,
        };
        let classes = if rule == Rule::Similar { similar(&ballots, similarity) } else { equal(&ballots) };
        let mut tally = Self {
            leader: None,
            rule,
            cast: ballots.iter().map(|ballot| ballot.score).sum(),
            total: scores.iter().sum(),
            voters: ballots.len(),
            classes,
        };
        tally.leader = match rule {
            Rule::Calls => tally.leading_call(&ballots),
            Rule::Equal | Rule::Similar => leading(tally.classes.iter().map(|c| c.standing).enumerate()),
        };
        tally
    }

    /// The share that the leading class has of what was cast; none where fewer than two gave an answer, since
    /// nobody agrees with himself.
    pub(super) fn agreement(&self) -> Option<f64> {
        // Confidences may be too small to be told from nothing.
        let leader = self.leading().filter(|_| self.voters >= 2 && self.cast > 0.0)?;
        Some(leader.standing.score / self.cast)
    }

    /// Whether those who gave an answer agree to this share.
    pub(super) fn reaches(&self, agreement: f64) -> bool {
        self.agreement().is_some_and(|share| !exceeds(agreement, share))
    }

    /// The place, among the candidates that were counted, of the one that stands for the leading class, when that
    /// has what it needs.
    pub(super) fn winner(&self, require: Require, candidates: &[Candidate]) -> Option<usize> {
        let leader = self.leading()?;
        let has_it = match require {
            Require::Plurality => true,
            Require::Majority => exceeds(leader.standing.score, self.total / 2.0),
            Require::Unanimous => self.classes.len() == 1,
        };
        if !has_it {
            return None;
        }
        let members =
            leader.places.iter().filter_map(|place| Ballot::of(*place, candidates.get(*place)?, 0.0));
        representative(&members.collect::<Vec<_>>())
    }

    /// Whether there are different answers, whatever else may come.
    pub(super) fn is_split(&self) -> bool {
        self.classes.len() > 1 && self.rule != Rule::Similar
    }

    /// Whether the winner is certain, whatever the open members say.
    pub(super) fn is_settled(&self, require: Require, open: &[Open]) -> bool {
        let Some(leader) = self.leading() else {
            return false;
        };
        let Some(first) = open.iter().map(|open| open.member).min() else {
            return true;
        };
        let score: f64 = open.iter().map(|open| open.score).sum();
        let weight: f64 = open.iter().map(|open| open.weight).sum();
        let is_ahead = match self.rule {
            // A new text may lie between two classes and join them.
            Rule::Similar => false,
            // With more than half there is neither more text, nor a name or a call that more members chose.
            Rule::Calls => exceeds(leader.standing.score, (self.cast + score) / 2.0),
            Rule::Equal => {
                let rest = Standing { score, weight, first };
                let others = self.classes.iter().filter(|class| !std::ptr::eq(*class, leader));
                let rivals = others.map(|class| class.standing.joined(rest)).chain([rest]);
                rivals.into_iter().all(|rival| leader.standing.compare(rival) == Ordering::Greater)
            }
        };
        is_ahead
            && match require {
                Require::Plurality => true,
                Require::Majority => exceeds(leader.standing.score, (self.total + score) / 2.0),
                Require::Unanimous => false,
            }
    }

    fn leading(&self) -> Option<&Class> {
        self.classes.get(self.leader?)
    }

    /// Text leads where it has at least as much as the most common call; otherwise the names that most chose
    /// and, among those, the arguments.
    fn leading_call(&self, ballots: &[Ballot<'_>]) -> Option<usize> {
        let key = |class: &Class| {
            let place = class.places.first();
            ballots.iter().find(|ballot| Some(&ballot.place) == place).map(|ballot| ballot.key)
        };
        let is_text = |class: &Class| matches!(key(class), Some(Key::Prose(_)));
        let text = self.classes.iter().position(is_text);
        let most =
            self.classes.iter().filter(|class| !is_text(class)).map(|c| c.standing.score).fold(0.0, f64::max);
        if let Some(text) = text
            && self.classes.get(text).is_some_and(|class| !exceeds(most, class.standing.score))
        {
            return Some(text);
        }
        let calls = |class: &Class| match key(class) {
            Some(Key::Calls(calls)) => Some(calls),
            _ => None,
        };
        let mut groups: Vec<(&Calls, Standing)> = Vec::new();
        for class in &self.classes {
            let Some(calls) = calls(class) else { continue };
            match groups.iter_mut().find(|(known, _)| known.same_names(calls)) {
                Some((_, standing)) => *standing = standing.joined(class.standing),
                None => groups.push((calls, class.standing)),
            }
        }
        let (chosen, _) = *groups.get(leading(groups.iter().map(|(_, s)| *s).enumerate())?)?;
        let is_chosen = |class: &Class| calls(class).is_some_and(|calls| calls.same_names(chosen));
        let of_chosen = self.classes.iter().enumerate().filter(|(_, class)| is_chosen(class));
        leading(of_chosen.map(|(at, class)| (at, class.standing)))
    }
}

/// One candidate's answer.
#[derive(Clone, Copy)]
struct Ballot<'a> {
    place: usize,
    member: usize,
    key: &'a Key,
    score: f64,
    weight: f64,
}

impl<'a> Ballot<'a> {
    fn of(place: usize, candidate: &'a Candidate, score: f64) -> Option<Self> {
        let key = candidate.key.as_ref()?;
        Some(Self { place, member: candidate.member, key, score, weight: candidate.weight })
    }

    fn standing(&self) -> Standing {
        Standing { score: self.score, weight: self.weight, first: self.member }
    }

    fn text(&self) -> Option<&'a Text> {
        match self.key {
            Key::Text(text) | Key::Prose(text) => Some(text),
            _ => None,
        }
    }

    fn similarity(&self, other: &Self) -> f64 {
        match (self.text(), other.text()) {
            (Some(a), Some(b)) => a.similarity(b),
            _ => 0.0,
        }
    }
}

impl Standing {
    fn joined(self, other: Self) -> Self {
        Self {
            score: self.score + other.score,
            weight: self.weight + other.weight,
            first: self.first.min(other.first),
        }
    }

    fn compare(self, other: Self) -> Ordering {
        compare(self.score, other.score)
            .then_with(|| compare(self.weight, other.weight))
            .then_with(|| other.first.cmp(&self.first))
    }
}

/// Sums of the same weights in another order are the same.
fn compare(a: f64, b: f64) -> Ordering {
    if (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) { Ordering::Equal } else { a.total_cmp(&b) }
}

fn exceeds(a: f64, b: f64) -> bool {
    compare(a, b) == Ordering::Greater
}

/// The index that comes with the best standing.
fn leading(standings: impl Iterator<Item = (usize, Standing)>) -> Option<usize> {
    standings
        .reduce(|best, next| if next.1.compare(best.1) == Ordering::Greater { next } else { best })
        .map(|(at, _)| at)
}

fn class(members: &[Ballot<'_>]) -> Option<Class> {
    let standing = members.iter().map(Ballot::standing).reduce(Standing::joined)?;
    Some(Class { places: members.iter().map(|ballot| ballot.place).collect(), standing })
}

/// Who stands for a class: of texts the medoid, which is most like all others; then the one with the greatest
/// weight, then the first in panel order.
fn representative(members: &[Ballot<'_>]) -> Option<usize> {
    let standing = |ballot: &Ballot<'_>| {
        let likeness = members.iter().map(|other| ballot.similarity(other)).sum();
        Standing { score: likeness, weight: ballot.weight, first: ballot.member }
    };
    leading(members.iter().map(|ballot| (ballot.place, standing(ballot))))
}

/// Classes of equal keys.
fn equal(ballots: &[Ballot<'_>]) -> Vec<Class> {
    let mut groups: Vec<Vec<Ballot<'_>>> = Vec::new();
    for ballot in ballots {
        let is_same =
            |group: &&mut Vec<Ballot<'_>>| group.first().is_some_and(|one| one.key.same(ballot.key));
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(*ballot),
            None => groups.push(vec![*ballot]),
        }
    }
    groups.iter().filter_map(|group| class(group)).collect()
}

/// Classes of similar texts: the text with the most others near it and these form the first class, and so on
/// with what is left.
fn similar(ballots: &[Ballot<'_>], least: f64) -> Vec<Class> {
    // Each pair once: texts may be long.
    let near: Vec<Vec<bool>> = ballots
        .iter()
        .enumerate()
        .map(|(i, a)| ballots.iter().take(i).map(|b| a.similarity(b) >= least).collect())
        .collect();
    let are_near = |a: usize, b: usize| {
        a == b || near.get(a.max(b)).and_then(|row| row.get(a.min(b))).is_some_and(|is_near| *is_near)
    };
    let mut left: Vec<usize> = (0..ballots.len()).collect();
    let mut classes = Vec::new();
    while !left.is_empty() {
        let ball = |centre: &usize| {
            let around = left.iter().filter(|other| are_near(*centre, **other));
            class(&around.filter_map(|at| ballots.get(*at)).copied().collect::<Vec<_>>())
        };
        let balls: Vec<Class> = left.iter().filter_map(ball).collect();
        let standings = balls.iter().map(|ball| ball.standing).enumerate();
        let Some(best) = leading(standings).and_then(|at| balls.get(at)) else {
            break;
        };
        left.retain(|at| ballots.get(*at).is_some_and(|ballot| !best.places.contains(&ballot.place)));
        classes.push(best.clone());
    }
    classes
}

#[cfg(test)]
mod tests;
