// What the words of a decision mean and look like. Every look has a shape of its own: colour only helps.

import { h, icon } from "./dom.js";

const OUTCOMES = {
  full: { icon: "ok", tone: "good", means: "every member of the panel gave a candidate" },
  quorum: { icon: "part", tone: "good", means: "enough members gave a candidate" },
  cascade: { icon: "steps", tone: "good", means: "the first members agreed, so that the others were not asked" },
  single: { icon: "one", tone: "fair", means: "one candidate was returned as it was" },
  degraded: { icon: "warning", tone: "fair", means: "something stood in for what failed" },
  failed: { icon: "failed", tone: "bad", means: "the caller got an error" },
  cancelled: { icon: "cancelled", tone: "quiet", means: "the caller left" },
  running: { icon: "running", tone: "live", means: "still going on" },
};

const RESULTS = {
  usable: { kind: "done", icon: "ok", tone: "good" },
  answered: { kind: "done", icon: "ok", tone: "good" },
  running: { kind: "running", icon: "running", tone: "live" },
  cancelled: { kind: "cancelled", icon: "cancelled", tone: "quiet" },
  not_asked: { kind: "idle", icon: "idle", tone: "quiet" },
  cooling: { kind: "cooling", icon: "cooling", tone: "cold" },
  limited: { kind: "limited", icon: "limited", tone: "fair" },
};

export const OUTCOME_WORDS = Object.keys(OUTCOMES);

const UNKNOWN = { icon: "warning", tone: "quiet", means: "" };
const FAILED = { kind: "failed", icon: "failed", tone: "bad" };

export function outcomeOf(word) {
  return OUTCOMES[word] ?? UNKNOWN;
}

// How a call looks by its result; every word that is not known is a cause of failure.
export function resultOf(word) {
  return Object.hasOwn(RESULTS, word) ? RESULTS[word] : FAILED;
}

// Whether a call is one of the panel's; the others judge, or stand in for what failed.
export function isMember(call) {
  return (call.role || "member") === "member";
}

// `rate_limited` is a word for machines.
export function spoken(word) {
  return String(word ?? "").replaceAll("_", " ");
}

export function outcomeBadge(word) {
  const { icon: shape, tone, means } = outcomeOf(word);
  return h("span", { class: `badge ${tone}`, title: means }, icon(shape), spoken(word));
}

export function resultBadge(call) {
  const { icon: shape, tone } = resultOf(call.result);
  return h("span", { class: `badge ${tone}` }, icon(shape), spoken(call.result));
}
