use super::*;
use crate::telemetry::metrics::Metrics;

const S: Duration = Duration::from_secs(1);

fn rules() -> Cooldown {
    Cooldown {
        failures: NonZeroU32::new(3).unwrap(),
        first: 30 * S,
        longest: 100 * S,
        statuses: [500].into(),
    }
}

fn admit(cooldowns: &Cooldowns, role: Role) -> Result<Pass, Cooling> {
    cooldowns.admit(&"m".into(), &rules(), role)
}

fn pass(cooldowns: &Cooldowns) -> Pass {
    admit(cooldowns, Role::Caller).unwrap()
}

/// For how many seconds nobody may call it.
fn left(cooldowns: &Cooldowns) -> Option<u64> {
    admit(cooldowns, Role::CallerOnly).err().map(|cooling| cooling.retry_after.as_secs())
}

fn cooled(retry_after: Option<Duration>) -> Cooldowns {
    let cooldowns = Cooldowns::default();
    assert!(!pass(&cooldowns).failed("x", None));
    assert!(!pass(&cooldowns).failed("x", None));
    assert!(pass(&cooldowns).failed("x", retry_after));
    cooldowns
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_cool_a_model_and_an_answer_between_them_begins_anew() {
    assert_eq!(left(&cooled(None)), Some(30));
    let cooldowns = Cooldowns::default();
    for _ in 0..5 {
        assert!(!pass(&cooldowns).failed("x", None));
        assert!(!pass(&cooldowns).failed("x", None));
        pass(&cooldowns).succeeded();
    }
    drop((pass(&cooldowns), pass(&cooldowns), pass(&cooldowns)));
    assert_eq!(left(&cooldowns), None, "cancelled calls say nothing");
}

#[tokio::test(start_paused = true)]
async fn calls_that_were_under_way_change_nothing_any_more() {
    let cooldowns = Cooldowns::default();
    let mut others = [pass(&cooldowns), pass(&cooldowns), pass(&cooldowns)];
    for _ in 0..3 {
        pass(&cooldowns).failed("x", None);
    }
    tokio::time::advance(10 * S).await;
    let [one, two, three] = &mut others;
    assert!(one.failed("x", None) && two.failed("x", Some(90 * S)));
    three.succeeded();
    assert_eq!(left(&cooldowns), Some(20));
}

#[tokio::test(start_paused = true)]
async fn retry_after_makes_a_cooldown_longer_up_to_the_longest() {
    assert_eq!(left(&cooled(Some(5 * S))), Some(30));
    assert_eq!(left(&cooled(Some(50 * S))), Some(50));
    assert_eq!(left(&cooled(Some(5000 * S))), Some(100));
}

#[tokio::test(start_paused = true)]
async fn one_probe_is_let_through_and_each_that_fails_doubles_the_time() {
    let cooldowns = cooled(None);
    for (wait, next) in [(30u32, 60u64), (60, 100), (100, 100)] {
        tokio::time::advance(wait * S - S / 10).await;
        assert!(admit(&cooldowns, Role::Caller).is_err());
        tokio::time::advance(S / 10).await;
        let mut probe = pass(&cooldowns);
        assert_eq!(admit(&cooldowns, Role::Caller).err(), Some(Cooling { retry_after: S }));
        assert!(probe.failed("x", None));
        assert_eq!(left(&cooldowns), Some(next));
    }
    tokio::time::advance(100 * S).await;
    pass(&cooldowns).succeeded();
    assert!(!pass(&cooldowns).failed("x", None), "it takes three again");
    assert_eq!(left(&cooldowns), None);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cancelled_leaves_its_place_to_the_next() {
    let cooldowns = cooled(None);
    tokio::time::advance(30 * S).await;
    drop(pass(&cooldowns));
    let mut next = pass(&cooldowns);
    next.spoke();
    assert_eq!(left(&cooldowns), None, "its first words end the cooldown");
    assert!(!next.failed("x", None), "its end is one failure");
}

#[tokio::test(start_paused = true)]
async fn an_overdue_call_that_is_dropped_has_failed() {
    let cooldowns = Cooldowns::default();
    for wait in [9, 10, 10, 10] {
        assert_eq!(left(&cooldowns), None);
        let mut late = pass(&cooldowns);
        late.overdue_at(Some(Instant::now() + 10 * S));
        tokio::time::advance(wait * S).await;
    }
    assert_eq!(left(&cooldowns), Some(30));
}

#[tokio::test(start_paused = true)]
async fn a_view_tells_whether_a_model_is_called_and_what_was_wrong() {
    let cooldowns = Cooldowns::default();
    let trouble = |failures, cause| Trouble { failures, cause };
    assert_eq!(cooldowns.view("m"), ModelView { state: ModelState::Called, trouble: trouble(0, None) });
    assert!(!pass(&cooldowns).failed("timeout", None));
    assert_eq!(
        cooldowns.view("m"),
        ModelView { state: ModelState::Called, trouble: trouble(1, Some("timeout")) }
    );
    for _ in 0..2 {
        pass(&cooldowns).failed("connect", None);
    }
    tokio::time::advance(10 * S).await;
    let cooling = ModelView { state: ModelState::Cooling(20 * S), trouble: trouble(3, Some("connect")) };
    assert_eq!(cooldowns.view("m"), cooling);
    tokio::time::advance(20 * S).await;
    let mut probe = pass(&cooldowns);
    assert_eq!(cooldowns.view("m").state, ModelState::Probing);
    probe.spoke();
    assert_eq!(cooldowns.view("m"), ModelView { state: ModelState::Called, trouble: trouble(0, None) });
}

#[tokio::test(start_paused = true)]
async fn a_look_says_what_would_be_admitted_of_a_model_that_was_never_asked_too() {
    let cooldowns = Cooldowns::default();
    for role in [Role::Caller, Role::CallerOnly, Role::Check] {
        assert_eq!(cooldowns.look("m", role).is_ok(), role != Role::Check, "{role:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_background_check_probes_callers_do_not() {
    let cooldowns = cooled(None);
    assert!(admit(&cooldowns, Role::Check).is_err(), "not before its time");
    tokio::time::advance(31 * S).await;
    assert_eq!(left(&cooldowns), Some(1));
    admit(&cooldowns, Role::Check).unwrap().succeeded();
    assert_eq!(left(&cooldowns), None);
    assert!(admit(&cooldowns, Role::Check).is_err(), "a model that is called needs no check");
}

#[tokio::test(start_paused = true)]
async fn scrapers_see_a_model_cool_until_it_answers() {
    let metrics = Metrics::default();
    let shows = |cooling: u8| {
        let line = format!("\nconsort_model_cooling{{model=\"m\"}} {cooling}\n");
        assert!(metrics.render().contains(&line), "{line}");
    };
    let cooldowns = Cooldowns::default();
    metrics.within(|| drop(pass(&cooldowns)));
    shows(0);
    for _ in 0..3 {
        pass(&cooldowns).failed("x", None);
    }
    shows(1);
    tokio::time::advance(30 * S).await;
    let mut probe = pass(&cooldowns);
    shows(1);
    probe.succeeded();
    shows(0);
}
