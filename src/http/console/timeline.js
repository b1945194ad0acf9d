// When each call of a run waited, was answered and ended: a row per call, drawn to scale.

import { h, icon, unseen } from "./dom.js";
import { ageOf, isRunning } from "./feed.js";
import { duration } from "./format.js";
import { isMember, resultOf, spoken } from "./words.js";

const SEGMENTS = {
  queued: "waiting for room",
  waiting: "until the first byte",
  writing: "until done",
  failed: "failed attempt",
  pause: "pause before the next attempt",
};

// Whether a call is still going on.
export function isUnderWay(call, decision) {
  return isRunning(decision) && call.result === "running";
}

export function timeline(decision) {
  const now = ageOf(decision);
  const calls = [...decision.members, ...decision.judges];
  const ends = calls.map((call) => endOf(call, decision, now));
  const horizon = isRunning(decision) ? roundUp(now * 1.1) : Math.max(now, ...ends, 1);
  const share = (ms) => `${Math.min(100, Math.max(0, (ms / horizon) * 100)).toFixed(3)}%`;
  const hasQuorum = decision.quorum_ms !== undefined;
  const scale = hasQuorum ? { "--quorum": share(decision.quorum_ms) } : {};
  const row = (call) => callRow(call, decision, now, share);
  return h("div", { class: hasQuorum ? "timeline has-quorum" : "timeline", css: scale },
    h("div", { class: "axis", "aria-hidden": "true" },
      ticks(horizon).map((ms) => h("span", { class: "tick", css: { "--at": share(ms) } }, ms < 1000 ? `${ms} ms` : `${ms / 1000} s`)),
      hasQuorum && h("span", { class: decision.quorum_ms > horizon * 0.75 ? "mark early" : "mark" },
        `quorum ${duration(decision.quorum_ms)}`)),
    h("ol", { "aria-label": "The panel, in time" }, decision.members.map(row)),
    hasQuorum && unseen(`The quorum was met after ${duration(decision.quorum_ms)}.`),
    decision.judges.length > 0 && h("ol", { "aria-label": "The judge's calls, in time" }, decision.judges.map(row)),
    legend(decision, calls, now));
}

function callRow(call, decision, now, share) {
  const underWay = isUnderWay(call, decision);
  const { kind, icon: shape, tone } = resultOf(underWay ? "running" : call.result);
  const parts = segments(call, decision, now);
  const end = endOf(call, decision, now);
  const word = underWay ? "running" : spoken(call.result);
  const track = parts.length === 0
    ? h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: "absent" }, absence(call)))
    : h("span", { class: "track", "aria-hidden": "true" }, parts.map(({ kind: part, from, to, note }) =>
        h("span", {
          class: `segment ${part}`,
          css: { "--from": share(from), "--to": share(to) },
          title: `${note ?? SEGMENTS[part]}: ${duration(to - from)}`,
        })), h("span", { class: `end ${tone}`, css: { "--at": share(end) } }, icon(shape)));
  return h("li", { class: `call is-${kind}${call.chosen ? " is-chosen" : ""}` },
    h("span", { class: "who" }, !isMember(call) && icon("judge"), !isMember(call) && unseen(`${call.role} `), h("span", { class: "name" }, call.model),
      call.chosen && icon("chosen"), call.chosen && unseen("chosen")),
    track,
    h("span", { class: `what ${tone}` }, h("span", { class: "word" }, word),
      parts.length > 0 && h("span", { class: "number" }, duration(end - call.started_ms))),
    unseen(sentence(call, parts)));
}

// What a call without a bar did instead.
function absence(call) {
  if (call.result === "not_asked") return "not asked";
  if (call.result === "cooling") return "cooling down, not called";
  if (call.result === "limited") return "over its limit, not called";
  return spoken(call.result);
}

function sentence(call, parts) {
  if (parts.length === 0) return ".";
  const spans = parts.map(({ kind, from, to, note }) => `${note ?? SEGMENTS[kind]} from ${duration(from)} to ${duration(to)}`);
  return `: ${spans.join(", ")}.`;
}

function endOf(call, decision, now) {
  return isUnderWay(call, decision) ? Math.max(now, call.started_ms) : call.started_ms + call.elapsed_ms;
}

// The stretches of a call, in ms from the run's beginning, none of them empty.
export function segments(call, decision, now) {
  const { kind } = resultOf(call.result);
  if (kind === "idle" || kind === "cooling" || (kind === "limited" && call.elapsed_ms < 1)) return [];
  const end = endOf(call, decision, now);
  const parts = [];
  let at = call.started_ms;
  const advance = (part, to, note) => {
    if (to > at) parts.push({ kind: part, from: at, to: Math.min(to, end), note });
    at = Math.max(at, to);
  };
  advance("queued", Math.min(end, at + (call.queued_ms ?? 0)));
  const tries = call.tries ?? [];
  tries.forEach((attempt, index) => {
    const isLast = index === tries.length - 1;
    const why = [spoken(attempt.result), attempt.status].filter(Boolean).join(" ");
    if (index > 0) advance("pause", attempt.started_ms);
    if (!isLast) advance("failed", attempt.started_ms + attempt.elapsed_ms, `attempt ${index + 1}, ${why}`);
  });
  if (call.first_byte_ms !== undefined) advance("waiting", Math.min(end, call.first_byte_ms));
  if (at < end) advance(lastKind(call, kind), end, kind === "failed" ? `failed: ${spoken(call.result)}` : undefined);
  return parts;
}

function lastKind(call, kind) {
  if (kind === "failed") return "failed";
  return call.first_byte_ms === undefined ? "waiting" : "writing";
}

// At most five steps of 1, 2 or 5 times a power of ten; none so late that its label would stand over the end.
function ticks(horizon) {
  const step = [1, 2, 5, 10].map((factor) => factor * 10 ** Math.floor(Math.log10(horizon / 5)))
    .find((candidate) => horizon / candidate <= 5.5);
  return Array.from({ length: Math.floor((horizon * 0.93) / step) + 1 }, (_, index) => index * step);
}

// The scale of a run that goes on changes in steps: bars grow, and do not wobble.
function roundUp(ms) {
  const scales = [1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000];
  return scales.find((scale) => scale >= ms) ?? ms;
}

// The patterns that occur, and what they mean.
function legend(decision, calls, now) {
  const shown = new Set(calls.flatMap((call) => segments(call, decision, now)).map((part) => part.kind));
  const cancelled = calls.some((call) => call.result === "cancelled" && !isUnderWay(call, decision));
  return h("p", { class: "legend", "aria-hidden": "true" },
    Object.entries(SEGMENTS).filter(([kind]) => shown.has(kind)).map(([kind, means]) =>
      h("span", {}, h("span", { class: `swatch segment ${kind}` }), means)),
    cancelled && h("span", {}, h("span", { class: "swatch segment waiting is-cancelled" }), "cancelled"),
    decision.quorum_ms !== undefined && h("span", {}, h("span", { class: "swatch quorum" }), "quorum"));
}
