//! What request number n is, and what its answer must be: all of it follows from n, so that callers, providers and
//! the oracle need not tell each other anything.

use std::time::Duration;

use serde_json::{Value, json};

/// How many members every panel has.
pub const MEMBERS: u64 = 3;
/// Numbers from here on are those of the probe after the load: slow members, no fault.
pub const PROBE: u64 = 1 << 40;
/// What providers put into their own errors: nobody else may see it.
pub const SECRET: &str = "rack-7-of-the-provider";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model that is no alias.
    Pass,
    /// A direct model, at the HTTP door.
    Direct,
    Judge,
    Rank,
    Score,
    Vote,
    /// A vote over tool calls.
    Tools,
    Weighted,
    Average,
    First,
    Cascade,
}

/// How a provider fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Error500,
    Limited429,
    /// Nothing comes, until the caller's patience ends.
    Stall,
    /// The connection breaks off in the middle of the answer.
    Cut,
    /// What comes is no answer.
    Garbage,
    /// The first byte is late.
    Slow,
}

/// A fault and whom it befalls.
#[derive(Clone, Copy, Debug)]
pub struct Mishap {
    pub fault: Fault,
    /// The member's number; the judge comes after the members.
    pub seat: u64,
    /// Whether it befalls every attempt, or the first alone.
    pub lasts: bool,
    /// Whether a stream is cut before its first word.
    pub is_early: bool,
}

/// Request number n.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub n: u64,
    pub kind: Kind,
    pub is_stream: bool,
    pub wants_usage: bool,
    /// Whether it is asked at the HTTP door, instead of through Envoy.
    pub is_at_door: bool,
    pub mishap: Option<Mishap>,
    /// When its caller leaves.
    pub leaves: Option<Duration>,
    /// How many bytes its question has beyond its words.
    pub padding: usize,
}

impl Plan {
    pub fn of(n: u64) -> Self {
        if n >= PROBE {
            return Self::plain(n, Kind::Judge);
        }
        let kind = match draw(n, 1) % 100 {
            0..30 => Kind::Pass,
            30..36 => Kind::Direct,
            36..54 => Kind::Judge,
            54..60 => Kind::Rank,
            60..66 => Kind::Score,
            66..72 => Kind::Vote,
            72..78 => Kind::Tools,
            78..83 => Kind::Weighted,
            83..88 => Kind::Average,
            88..94 => Kind::First,
            _ => Kind::Cascade,
        };
        let seats = match kind {
            Kind::Direct | Kind::Pass => 1,
            Kind::Judge | Kind::Rank | Kind::Score => MEMBERS + 1,
            _ => MEMBERS,
        };
        // Each of seven faults befalls one request in twenty.
        let fault = match draw(n, 2) % 20 {
            0 => Some(Fault::Error500),
            1 => Some(Fault::Limited429),
            2 => Some(Fault::Stall),
            3 => Some(Fault::Cut),
            4 => Some(Fault::Garbage),
            5 => Some(Fault::Slow),
            _ => None,
        };
        let mishap = fault.map(|fault| Mishap {
            fault,
            seat: draw(n, 3) % seats,
            lasts: draw(n, 4).is_multiple_of(2),
            is_early: draw(n, 5).is_multiple_of(2),
        });
        let leaves = draw(n, 2) % 20 == 6 && kind != Kind::Pass;
        let padding = match draw(n, 6) % 512 {
            0 if kind == Kind::Pass => 4 << 20,
            0..8 if kind == Kind::Pass => 1 << 20,
            0..8 => 200 << 10,
            _ => (draw(n, 7) % 2000) as usize,
        };
        Self {
            is_stream: draw(n, 8).is_multiple_of(2),
            wants_usage: draw(n, 9).is_multiple_of(2),
            is_at_door: kind == Kind::Direct || (kind != Kind::Pass && draw(n, 10).is_multiple_of(5)),
            mishap,
            leaves: leaves.then(|| Duration::from_millis(draw(n, 11) % 450)),
            padding,
            ..Self::plain(n, kind)
        }
    }

    fn plain(n: u64, kind: Kind) -> Self {
        Self {
            n,
            kind,
            is_stream: false,
            wants_usage: false,
            is_at_door: false,
            mishap: None,
            leaves: None,
            padding: 0,
        }
    }

    /// The model that the caller names.
    pub fn alias(&self) -> &'static str {
        match self.kind {
            Kind::Pass => "plain-model",
            Kind::Direct => "m0",
            Kind::Judge => "soak-judge",
            Kind::Rank => "soak-rank",
            Kind::Score => "soak-score",
            Kind::Vote | Kind::Tools => "soak-vote",
            Kind::Weighted => "soak-weighted",
            Kind::Average => "soak-average",
            Kind::First => "soak-first",
            Kind::Cascade => "soak-cascade",
        }
    }

    pub fn request_id(&self) -> String {
        format!("soak-{}", self.n)
    }

    /// The mark that everything said about this request carries.
    pub fn tag(&self) -> String {
        format!("#s{}#", self.n)
    }

    /// The caller's request.
    pub fn body(&self) -> String {
        let padding = "why is it so? ".repeat(self.padding / 14);
        let mut body = json!({
            "model": self.alias(),
            "messages": [{"role": "user", "content": format!("{} Why is the sky blue? {padding}", self.tag())}],
            "x_soak": self.tag(),
        });
        if self.is_stream {
            body["stream"] = json!(true);
            if self.wants_usage {
                body["stream_options"] = json!({"include_usage": true});
            }
        }
        if self.kind == Kind::Tools {
            body["tools"] = json!([{"type": "function", "function": {"name": "lookup"}}]);
        }
        body.to_string()
    }

    /// What befalls this attempt (the first is 1) at this seat.
    pub fn fault(&self, seat: u64, attempt: u64) -> Option<Mishap> {
        self.mishap.filter(|mishap| mishap.seat == seat && (mishap.lasts || attempt == 1))
    }

    /// Whether whoever sits there gives no answer. What is tried again and what is not stands in docs/errors.md.
    pub fn is_lost(&self, seat: u64) -> bool {
        self.mishap.is_some_and(|mishap| {
            mishap.seat == seat
                && match mishap.fault {
                    Fault::Slow => false,
                    Fault::Stall | Fault::Garbage => true,
                    Fault::Error500 | Fault::Limited429 | Fault::Cut => mishap.lasts,
                }
        })
    }

    /// Whether the answer breaks off in its caller's hands, or may, where it is not certain whose answer it is.
    pub fn breaks_off(&self) -> bool {
        let seat = match self.kind {
            Kind::Judge => Some(MEMBERS),
            Kind::Direct => Some(0),
            Kind::First => None,
            _ => return false,
        };
        self.mishap.is_some_and(|mishap| {
            self.is_stream
                && mishap.fault == Fault::Cut
                && !mishap.is_early
                && seat.is_none_or(|seat| mishap.seat == seat)
        })
    }

    /// The members that give a candidate.
    pub fn survivors(&self) -> impl Iterator<Item = u64> + '_ {
        (0..MEMBERS).filter(|member| !self.is_lost(*member))
    }

    /// What a member says; a call of a tool is in [`Self::arguments`].
    pub fn candidate(&self, member: u64) -> String {
        match self.kind {
            Kind::Vote | Kind::Weighted | Kind::Cascade | Kind::Average => {
                self.numbered(member, self.number(member))
            }
            _ => format!("Candidate of m{member} for {}: {}", self.tag(), self.filler(member)),
        }
    }

    fn numbered(&self, member: u64, number: u64) -> String {
        format!("{} m{member} has worked it out. The answer is {number}.", self.tag())
    }

    /// The first two members agree, and the third does sometimes; where an average is wanted nobody does.
    fn number(&self, member: u64) -> u64 {
        let number = 1000 + draw(self.n, 20) % 8000;
        match self.kind {
            Kind::Average => number + 2 * member,
            _ if member == 2 => number + u64::from(!self.third_agrees()),
            _ => number,
        }
    }

    fn third_agrees(&self) -> bool {
        self.n.is_multiple_of(3)
    }

    /// The arguments with which a member calls its tool.
    pub fn arguments(&self, member: u64) -> String {
        let mut arguments = json!({"key": self.tag()});
        if member == 2 && !self.third_agrees() {
            arguments["deep"] = json!(true);
        }
        arguments.to_string()
    }

    /// What the judge writes from so many drafts.
    pub fn judged(&self, drafts: usize) -> String {
        format!("Judged {} from {drafts} drafts: {}", self.tag(), self.filler(9))
    }

    /// The member that a judge prefers, of these.
    pub fn preferred(&self, shown: &[u64]) -> u64 {
        let wanted = draw(self.n, 21) % MEMBERS;
        if shown.contains(&wanted) { wanted } else { shown.iter().copied().min().unwrap_or(wanted) }
    }

    fn filler(&self, who: u64) -> String {
        const WORDS: [&str; 8] = ["short", "waves", "are", "scattered", "é", "more", "than", "long\n"];
        let words = 8 + draw(self.n, 30 + who) % 24;
        let words: Vec<&str> = (0..words).map(|i| WORDS[(draw(self.n, 40 + who + i) % 8) as usize]).collect();
        words.join(" ")
    }

    /// How long a call takes, in ms.
    pub fn delay(&self, seat: u64) -> u64 {
        if self.n >= PROBE { 1500 } else { 20 + draw(self.n, 60 + seat) % 180 }
    }

    /// How long the caller rests afterwards.
    pub fn rest(&self) -> Duration {
        Duration::from_millis(200 + draw(self.n, 70) % 800)
    }

    /// The text of an answer that is right.
    pub fn accepts(&self, text: &str) -> bool {
        let is_of = |member: u64| self.candidate(member) == text;
        let is_majority = |member: &u64| self.number(*member) == self.number(0);
        let drafts = self.survivors().count();
        match self.kind {
            Kind::Pass | Kind::Tools => false,
            Kind::Direct => self.candidate(0) == text,
            Kind::Judge if self.is_lost(MEMBERS) => self.survivors().any(is_of),
            Kind::Judge => self.judged(drafts) == text,
            Kind::Rank | Kind::Score if self.is_lost(MEMBERS) => self.survivors().any(is_of),
            Kind::Rank | Kind::Score => {
                let shown: Vec<u64> = self.survivors().collect();
                self.candidate(self.preferred(&shown)) == text
            }
            Kind::Vote | Kind::Weighted => self.survivors().filter(is_majority).any(is_of),
            Kind::Cascade => {
                self.survivors().filter(is_majority).any(is_of) || (drafts < 3 && self.judged(drafts) == text)
            }
            Kind::Average => {
                let numbers: Vec<u64> = self.survivors().map(|member| self.number(member)).collect();
                let middle = (numbers[(numbers.len() - 1) / 2] + numbers[numbers.len() / 2]) / 2;
                self.survivors().any(|member| self.numbered(member, middle) == text)
            }
            Kind::First => self.survivors().any(is_of),
        }
    }

    /// What may have been heard of an answer that broke off.
    pub fn begins(&self, text: &str) -> bool {
        match self.kind {
            Kind::Judge => self.judged(self.survivors().count()).starts_with(text),
            _ => (0..MEMBERS).any(|member| self.candidate(member).starts_with(text)),
        }
    }

    /// Calls of tools that are right: one, by a member of the majority.
    pub fn accepts_calls(&self, calls: &Value) -> bool {
        let called = |m: u64| {
            calls[0]["id"] == format!("call_m{m}_{}", self.n)
                && calls[0]["function"]["name"] == "lookup"
                && calls[0]["function"]["arguments"] == self.arguments(m)
        };
        calls.as_array().is_some_and(|calls| calls.len() == 1)
            && self.survivors().any(|m| called(m) && self.arguments(m) == self.arguments(0))
    }

    /// How an answer may have come about; nothing where it does not matter.
    pub fn outcomes(&self) -> &'static [&'static str] {
        let is_whole = self.survivors().count() == 3;
        match self.kind {
            Kind::Pass | Kind::Direct => &[],
            Kind::Judge | Kind::Rank | Kind::Score if self.is_lost(MEMBERS) => &["degraded"],
            Kind::Judge | Kind::Rank | Kind::Score | Kind::Average if is_whole => &["full"],
            Kind::Judge | Kind::Rank | Kind::Score | Kind::Average => &["quorum"],
            Kind::Vote | Kind::Weighted | Kind::Tools => &["full", "quorum"],
            Kind::First => &["full", "quorum", "single"],
            Kind::Cascade if is_whole => &["cascade"],
            Kind::Cascade => &["cascade", "quorum"],
        }
    }

    /// The status that the caller gets.
    pub fn status(&self) -> u16 {
        let Some(mishap) = self.mishap else { return 200 };
        match (self.kind, mishap.fault) {
            (Kind::Pass, Fault::Error500) => 500,
            (Kind::Pass, Fault::Limited429) => 429,
            (Kind::Direct, _) if self.breaks_off() => 200,
            (Kind::Direct, Fault::Limited429) if mishap.lasts => 429,
            (Kind::Direct, Fault::Stall) => 504,
            (Kind::Direct, _) if self.is_lost(0) => 502,
            _ => 200,
        }
    }

    /// What the upstream of plain models answers to this body, and whether it breaks off.
    pub fn upstream(&self, body: &[u8]) -> (String, bool) {
        let fault = self.mishap.map(|mishap| mishap.fault);
        let heard = json!({"heard": self.tag(), "bytes": body.len(), "hash": hash(body)}).to_string();
        let words = format!("data: {heard}\n\n").repeat(if self.is_stream { 12 } else { 1 });
        match fault {
            Some(Fault::Garbage) => (format!("{{\"choices\": [{}", self.tag()), false),
            Some(Fault::Cut) => (words, true),
            _ => (words, false),
        }
    }
}

/// The numbers of all marks in a text.
pub fn tags(text: &[u8]) -> impl Iterator<Item = u64> + '_ {
    memchr::memmem::find_iter(text, b"#s").filter_map(|at| {
        let rest = text.get(at + 2..)?;
        let end = rest.iter().take(20).position(|byte| *byte == b'#')?;
        std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
    })
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A number that n and what it is for decide (splitmix64).
pub fn draw(n: u64, what: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(what.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
