// Every call of a run in numbers, with sums.

import { h, icon, unseen } from "./dom.js";
import { count, duration, NONE, number, usd } from "./format.js";
import { isUnderWay } from "./timeline.js";
import { isMember, resultBadge, spoken } from "./words.js";

// A heading, whether it is a number's, and what stands in a call's row.
const COLUMNS = [
  ["Model", "words", (call) => [h("span", { class: "name" }, call.model), call.chosen && icon("chosen"), call.chosen && unseen("chosen")]],
  ["Role", "words", (call) => call.role || "member"],
  ["Result", "words", (call, decision) => resultBadge(isUnderWay(call, decision) ? { ...call, result: "running" } : call)],
  ["Started", "number", (call) => duration(call.started_ms)],
  ["Queued", "number", (call) => duration(call.queued_ms || undefined)],
  ["First byte", "number", (call) => duration(call.first_byte_ms)],
  ["Took", "number", (call) => duration(call.elapsed_ms || undefined)],
  ["Attempts", "number", (call) => count(call.attempts)],
  ["Weight", "number", (call) => (isMember(call) ? number(call.weight) : NONE)],
  ["Key", "words", (call) => h("span", { class: "key" }, call.key ?? NONE)],
  ["Score", "number", (call) => number(call.score)],
  ["Tokens in", "number", (call) => about(call.usage, "prompt_tokens")],
  ["Tokens out", "number", (call) => about(call.usage, "completion_tokens")],
  ["Cost", "number", (call) => usd(call.cost_usd)],
];

export function calls(decision) {
  const all = [...decision.members, ...decision.judges];
  const asked = all.filter((call) => call.result !== "not_asked");
  // A column in which nobody has anything says nothing.
  const shown = COLUMNS.filter(([name]) => !isEmpty(name, all));
  const retried = all.filter((call) => (call.tries ?? []).length > 1);
  return h("section", { class: "calls", "aria-label": "Calls" },
    h("h3", {}, "Calls, tokens and cost"),
    h("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Calls, tokens and cost" },
      h("table", {},
        h("thead", {}, h("tr", {}, shown.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
        h("tbody", {}, all.map((call) => h("tr", { class: call.chosen ? "is-chosen" : null },
          shown.map(([, kind, value], index) =>
            h(index === 0 ? "th" : "td", { scope: index === 0 ? "row" : null, class: kind }, value(call, decision)))))),
        h("tfoot", {}, sums(decision, shown, asked)))),
    tokenDetails(decision.usage),
    retried.map((call) => attempts(call)));
}

function isEmpty(name, all) {
  const isDefault = {
    Role: isMember,
    Queued: (call) => !call.queued_ms,
    "First byte": (call) => call.first_byte_ms === undefined,
    Weight: (call) => !isMember(call) || call.weight === 1,
    Key: (call) => call.key === undefined,
    Score: (call) => call.score === undefined,
    Cost: (call) => call.cost_usd === undefined,
  };
  return name in isDefault && all.every(isDefault[name]);
}

function sums(decision, shown, asked) {
  const total = {
    Model: "Sum",
    Result: `${asked.length} asked`,
    Took: duration(decision.total_ms),
    Attempts: count(asked.reduce((sum, call) => sum + call.attempts, 0)),
    "Tokens in": about(decision.usage, "prompt_tokens"),
    "Tokens out": about(decision.usage, "completion_tokens"),
    Cost: usd(decision.cost_usd),
  };
  return h("tr", {}, shown.map(([name, kind], index) =>
    h(index === 0 ? "th" : "td", { scope: index === 0 ? "row" : null, class: kind }, total[name] ?? "")));
}

// A count, marked where a part of it is a guess.
function about(usage, field) {
  if (!usage) return NONE;
  return usage.estimated ? [h("abbr", { title: "a part of it is estimated: a provider reported no usage" }, "≈"), count(usage[field])] : count(usage[field]);
}

function tokenDetails(usage) {
  if (!usage) return null;
  const facts = [
    [usage.cached_tokens, "read from a cache"],
    [usage.reasoning_tokens, "spent on reasoning"],
  ].filter(([tokens]) => tokens !== undefined && tokens !== null);
  const told = facts.map(([tokens, what]) => `${count(tokens)} ${what}`).join(", ");
  return h("p", { class: "soft" }, `${count(usage.total_tokens)} tokens in all${told ? `; of these ${told}` : ""}.`);
}

function attempts(call) {
  return h("details", { class: "attempts" }, h("summary", {}, `${call.model}: ${call.tries.length} attempts`),
    h("ol", {}, call.tries.map((attempt) =>
      h("li", {}, `${spoken(attempt.result)}${attempt.status ? ` (${attempt.status})` : ""}, after ${duration(attempt.elapsed_ms)}, begun at ${duration(attempt.started_ms)}`))));
}
