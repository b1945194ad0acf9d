// One decision: what came about and why, who was asked when, who said what, and what it cost.

import { calls } from "./calls.js";
import { candidates, classesOf } from "./candidates.js";
import { h } from "./dom.js";
import { ageOf, isRunning } from "./feed.js";
import { duration, listed, moment, NONE, number, percent, plural, usd, count } from "./format.js";
import { timeline } from "./timeline.js";
import { outcomeBadge, spoken } from "./words.js";

const DEGRADED = {
  judge_fallback: "the judge's fallback judged",
  judge_failed: "the judge failed",
  no_consensus: "the members did not agree",
  quorum_missed: "the quorum was missed",
};

// The whole record.
export function decisionSections(decision, redraw) {
  return [summary(decision), texts(decision), time(decision), candidates(decision, redraw), calls(decision), record(decision)];
}

// What is worth seeing beside a run of one's own.
export function runSections(decision, redraw) {
  return [summary(decision), time(decision), candidates(decision, redraw), calls(decision)];
}

function summary(decision) {
  const facts = [
    ["Alias", decision.alias],
    ["Strategy", decision.strategy],
    ["Began", moment(decision.started_at_ms)],
    ["Took", duration(ageOf(decision))],
    ["Quorum", `${decision.quorum_got} of ${decision.quorum_needed} needed`],
    decision.agreement !== undefined && ["Agreement", percent(decision.agreement)],
    ["Tokens", count(decision.usage?.total_tokens)],
    ["Cost", usd(decision.cost_usd)],
    decision.calls_saved > 0 && ["Calls saved", count(decision.calls_saved)],
    ["Asked for", decision.stream ? "a stream" : "a whole answer"],
    decision.door && ["Door", decision.door],
    decision.overrides.length > 0 && ["Overrides", decision.overrides.join(", ")],
    decision.ignored.length > 0 && ["Ignored", decision.ignored.join(", ")],
    ["Request", h("code", {}, decision.request_id || NONE)],
  ].filter(Boolean);
  return h("section", { class: "summary", "aria-label": "Summary" },
    h("p", { class: "why" }, outcomeBadge(decision.outcome), " ", why(decision)),
    decision.condition_failed && h("p", { class: "note" }, "The ensemble's condition could not be evaluated, and was taken to hold."),
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
}

// How the answer came about, in a sentence or two.
export function why(decision) {
  const { outcome, members, judges, quorum_got: got, quorum_needed: needed } = decision;
  const asked = members.filter((call) => call.result !== "not_asked").length;
  if (outcome === "running") return `${plural(asked, "member")} asked, ${got} of ${needed} needed candidates so far.`;
  if (outcome === "cancelled") return `The caller left after ${duration(decision.total_ms)}.`;
  if (decision.error_code === "killed") return `Consort was killed ${duration(decision.total_ms)} after the run began, or later: this is what its journal had of it.`;
  if (outcome === "failed") {
    return `The caller got the error ${decision.error_code || "unknown"}: ${plural(got, "usable answer")} of ${plural(asked, "member")} asked, ${needed} needed.`;
  }
  const degraded = decision.degraded.map((word) => DEGRADED[word] ?? spoken(word));
  const but = degraded.length > 0 ? ` But ${listed(degraded)}.` : "";
  return `${reason(decision, members, judges, got)}${but}`;
}

function reason(decision, members, judges, got) {
  const chosen = members.find((call) => call.chosen);
  const writer = judges.find((call) => call.chosen) ?? judges.findLast((call) => call.result === "answered");
  if (!chosen) {
    return writer ? `${writer.model} wrote the answer from ${plural(got, "candidate")}.` : `The answer came from ${plural(got, "candidate")}.`;
  }
  if (decision.outcome === "single") return `${chosen.model} was the only one with a usable answer, and its answer was returned.`;
  const by = {
    vote: () => votes(decision, members, chosen, "the largest"),
    weighted: () => votes(decision, members, chosen, "the heaviest"),
    rank: () => `The judge put ${chosen.model} before ${plural(got - 1, "other candidate")}.`,
    score: () => `${chosen.model} has the highest grade${chosen.score === undefined ? "" : `, ${number(chosen.score)}`}.`,
    first: () => `${chosen.model} was the first with a usable answer.`,
    average: () => `The numbers of ${plural(got, "candidate")} were averaged; the message is ${chosen.model}'s.`,
  };
  return (by[decision.strategy] ?? (() => `${chosen.model}'s answer was returned.`))();
}

function votes(decision, members, chosen, what) {
  const equal = members.filter((call) => call.result === "usable" && call.key !== undefined && call.key === chosen.key);
  const group = classesOf(members).get(chosen.key);
  const share = decision.agreement === undefined ? "" : ` (${percent(decision.agreement)})`;
  if (!group) return `${chosen.model}'s answer stands for ${what} class of like answers${share}.`;
  return `${listed(equal.map((call) => call.model))} gave the same answer, ${what} class${share}; ${chosen.model}'s was returned.`;
}

function texts(decision) {
  const shown = [["Question", decision.question], ["Answer", decision.answer]].filter(([, text]) => text !== undefined);
  if (shown.length === 0) return null;
  return h("section", { class: "exchange", "aria-label": "Question and answer" },
    shown.map(([name, text]) => h("div", { class: "said" }, h("h3", {}, name),
      h("div", { class: "text", tabindex: "0", role: "region", "aria-label": name }, text))));
}

function time(decision) {
  return h("section", { "aria-label": "Timeline" }, h("h3", {}, "Timeline"), timeline(decision));
}

function record(decision) {
  const { heardAt, ...told } = decision;
  return h("details", { class: "record" }, h("summary", {}, "The record as JSON"),
    h("pre", { tabindex: "0" }, isRunning(decision) ? "Once it is done." : JSON.stringify(told, null, 2)));
}
