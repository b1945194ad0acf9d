//! Best of n: a judge chooses one candidate.

use super::super::candidate::Candidate;
use super::super::error::Cause;
use super::super::prompt::shuffled;
use super::super::run::Run;
use super::form::{Form, Marks};
use super::verdict::{Question, ask};
use super::{Rank, RankMode};

/// The place of the best candidate.
pub(in super::super) async fn choose(
    run: &mut Run,
    rank: &Rank,
    candidates: &[Candidate],
) -> Result<usize, Cause> {
    let questions: Vec<Question<'_>> = match rank.mode {
        RankMode::Listwise => vec![shuffled(candidates, &run.context.request_id)],
        RankMode::Pairwise => pairs(candidates),
    }
    .into_iter()
    .map(|shown| Question { judge: &rank.judge, shown })
    .collect();
    let verdicts = ask(run, Form::Best, &questions).await;
    let shown = questions.iter().map(|question| &*question.shown);
    let scores = match rank.mode {
        RankMode::Listwise => chosen(candidates, shown.zip(verdicts).next()),
        RankMode::Pairwise => copeland(candidates, shown.zip(verdicts)),
    }?;
    for (candidate, score) in candidates.iter().zip(&scores) {
        run.account.graded(candidate.member, *score);
    }
    best(candidates, scores.into_iter().map(Some)).ok_or(Cause::Upstream)
}

/// Every pair in both orders: judges favour a place.
fn pairs(candidates: &[Candidate]) -> Vec<Vec<&Candidate>> {
    let all = candidates.iter().flat_map(|a| candidates.iter().map(move |b| vec![a, b]));
    all.filter(|pair| !matches!(**pair, [a, b] if a.member == b.member)).collect()
}

type Verdict<'a> = (&'a [&'a Candidate], Result<Marks, Cause>);

fn chosen(candidates: &[Candidate], verdict: Option<Verdict<'_>>) -> Result<Vec<f64>, Cause> {
    let (shown, marks) = verdict.ok_or(Cause::Upstream)?;
    let marks = marks?;
    Ok(candidates.iter().map(|candidate| mark(candidate, shown, &marks)).collect())
}

/// Copeland's score: the comparisons won, less those lost. A pair is won by who is better in both orders; where
/// the orders contradict each other, or only one gave a verdict and no other, the pair is what it says: nobody's,
/// or that one's. A pair without any verdict leaves no score at all.
fn copeland<'a>(
    candidates: &[Candidate],
    verdicts: impl Iterator<Item = Verdict<'a>>,
) -> Result<Vec<f64>, Cause> {
    let verdicts: Vec<Verdict<'_>> = verdicts.collect();
    let balance = |a: &Candidate, b: &Candidate| {
        let of_pair = verdicts.iter().filter(|(shown, _)| {
            shown.iter().all(|candidate| [a.member, b.member].contains(&candidate.member))
        });
        let mut cause = Cause::Upstream;
        let mut balance: Option<f64> = None;
        for (shown, marks) in of_pair {
            match marks {
                Ok(marks) => {
                    let won = mark(a, shown, marks) - mark(b, shown, marks);
                    balance = Some(balance.unwrap_or(0.0) + won);
                }
                Err(why) => cause = *why,
            }
        }
        balance.ok_or(cause)
    };
    let score = |a: &Candidate| {
        let others = candidates.iter().filter(|b| b.member != a.member);
        // Not `signum`, which has none for zero.
        let won =
            others.map(|b| balance(a, b).map(|won| f64::from(i8::from(won > 0.0) - i8::from(won < 0.0))));
        won.sum()
    };
    candidates.iter().map(score).collect()
}

fn mark(candidate: &Candidate, shown: &[&Candidate], marks: &Marks) -> f64 {
    let at = shown.iter().position(|one| one.member == candidate.member);
    at.and_then(|at| marks.get(at).copied().flatten()).unwrap_or(0.0)
}

/// The place of the candidate with the best score; then by weight, then by panel order. Those without a score
/// are out.
pub(in super::super) fn best(
    candidates: &[Candidate],
    scores: impl Iterator<Item = Option<f64>>,
) -> Option<usize> {
    let scored =
        candidates.iter().zip(scores).enumerate().filter_map(|(at, (c, score))| Some((at, c, score?)));
    let best = scored.reduce(|best, next| {
        let is_better = next.2.total_cmp(&best.2).then(next.1.weight.total_cmp(&best.1.weight)).is_gt();
        if is_better { next } else { best }
    });
    best.map(|(at, ..)| at)
}
