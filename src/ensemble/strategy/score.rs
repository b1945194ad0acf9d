//! Score averaging: judges grade every candidate, and the best mean wins.

use super::super::candidate::Candidate;
use super::super::error::Cause;
use super::super::prompt::shuffled;
use super::super::run::Run;
use super::Score;
use super::form::{Form, Marks};
use super::rank::best;
use super::verdict::{Question, ask};

/// The place of the candidate with the best mean grade.
pub(in super::super) async fn choose(
    run: &mut Run,
    score: &Score,
    candidates: &[Candidate],
) -> Result<usize, Cause> {
    // Each judge is shown another order, so that no place is favoured by all.
    let questions: Vec<Question<'_>> = score
        .judges
        .iter()
        .enumerate()
        .map(|(at, judge)| Question {
            judge,
            shown: shuffled(candidates, &format!("{}/{at}", run.context.request_id)),
        })
        .collect();
    let verdicts = ask(run, Form::Grades, &questions).await;
    let cause = verdicts.iter().find_map(|verdict| verdict.as_ref().err().copied());
    let grades: Vec<Marks> = questions
        .iter()
        .zip(&verdicts)
        .map(|(question, verdict)| {
            let marks = verdict.as_ref().ok();
            let of = |candidate: &Candidate| {
                let at = question.shown.iter().position(|shown| shown.member == candidate.member)?;
                *marks?.get(at)?
            };
            candidates.iter().map(of).collect()
        })
        .collect();
    let means = means(&grades, candidates.len());
    for (candidate, mean) in candidates.iter().zip(&means) {
        if let Some(mean) = mean {
            run.account.graded(candidate.member, *mean);
        }
    }
    best(candidates, means.into_iter()).ok_or(cause.unwrap_or(Cause::Upstream))
}

/// Each candidate's mean over the judges that graded it, each judge's grades stretched to 0 to 1 first where there
/// are several judges; none for who has no more than half of the grades.
fn means(grades: &[Marks], candidates: usize) -> Vec<Option<f64>> {
    let comparable: Vec<Marks> = match grades {
        [only] => vec![only.clone()],
        several => several.iter().map(stretched).collect(),
    };
    (0..candidates)
        .map(|at| {
            let cells: Vec<f64> =
                comparable.iter().filter_map(|row| row.get(at).copied().flatten()).collect();
            let count = u32::try_from(cells.len()).ok().filter(|_| cells.len() * 2 > grades.len())?;
            Some(cells.iter().sum::<f64>() / f64::from(count))
        })
        .collect()
}

/// One judge's grades from 0 for its worst to 1 for its best. A judge to whom all are alike says nothing of which
/// is better: each gets the middle.
fn stretched(row: &Marks) -> Marks {
    let given = || row.iter().copied().flatten();
    let (least, most) = (given().fold(f64::INFINITY, f64::min), given().fold(f64::NEG_INFINITY, f64::max));
    let stretch = |grade: f64| if most > least { (grade - least) / (most - least) } else { 0.5 };
    row.iter().map(|grade| grade.map(stretch)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lenient_judge_has_no_more_say_than_a_strict_one() {
        // The raw means are 7 and 6; stretched, both judges disagree and the second one's margin is no greater.
        let strict = vec![Some(2.0), Some(3.0)];
        let lenient = vec![Some(10.0), Some(4.0)];
        assert_eq!(means(&[strict.clone(), lenient], 2), [Some(0.5), Some(0.5)]);
        assert_eq!(means(&[strict], 2), [Some(2.0), Some(3.0)], "one judge's grades stay as they are");
    }

    #[test]
    fn a_missing_grade_is_missing_and_half_of_them_are_too_few() {
        let rows = [
            vec![Some(0.0), Some(10.0), None],
            vec![Some(0.0), None, Some(10.0)],
            vec![Some(0.0), Some(10.0), None],
        ];
        assert_eq!(means(&rows, 3), [Some(0.0), Some(1.0), None]);
        let failed = [vec![Some(4.0), Some(8.0)], vec![None, None]];
        assert_eq!(means(&failed, 2), [None, None], "one of two is no more than half");
    }

    #[test]
    fn a_judge_to_whom_all_are_alike_decides_nothing() {
        let rows = [vec![Some(7.0), Some(7.0)], vec![Some(1.0), Some(9.0)]];
        assert_eq!(means(&rows, 2), [Some(0.25), Some(0.75)]);
    }
}
