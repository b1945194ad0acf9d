// What the members said, side by side, with the words that differ.

import { difference, medoid, similarity } from "./compare.js";
import { h, icon } from "./dom.js";
import { isRunning, runOf } from "./feed.js";
import { number, percent, plural } from "./format.js";
import { resultBadge } from "./words.js";

// What texts are compared with, by run, as the reader has chosen it.
const chosenBases = new Map();

export function candidates(decision, redraw) {
  const said = decision.members.filter((call) => call.result === "usable" || call.content !== undefined);
  const texts = said.filter((call) => call.content !== undefined);
  const classes = classesOf(decision.members);
  if (said.length === 0) return null;
  const bases = basesOf(decision, texts);
  const base = baseOf(decision, bases);
  return h("section", { class: "candidates", "aria-label": "Candidates" },
    h("div", { class: "section-head" },
      h("h3", {}, plural(said.length, "candidate")),
      texts.length > 1 && compareWith(decision, bases, base, redraw)),
    texts.length === 0 && !isRunning(decision) && howToSeeTexts(),
    h("ul", { class: "cards" }, said.map((call) => card(call, classes, base))));
}

function howToSeeTexts() {
  return h("p", { class: "note" }, "Consort keeps no texts unless it is told to. With ",
    h("code", {}, "decisions: {include_content: true}"),
    " in its configuration, questions, candidates and answers of new runs are shown here.");
}

function compareWith(decision, bases, base, redraw) {
  const change = (event) => {
    chosenBases.set(runOf(decision), event.currentTarget.value);
    redraw();
  };
  return h("label", { class: "compare" }, "Show differences from",
    h("select", { on: { change } },
      bases.map(({ id, name }) => h("option", { value: id, selected: id === base.id }, name))));
}

// What there is to compare with: what counts most stands first, and is taken unless the reader chooses.
function basesOf(decision, texts) {
  const members = texts.map((call) => ({ id: `member-${decision.members.indexOf(call)}`, name: call.model, text: call.content, call }));
  const chosen = members.find(({ call }) => call.chosen);
  const middle = members[medoid(texts.map((call) => call.content))];
  const first = chosen ? { ...chosen, name: `the chosen one, ${chosen.name}` }
    : middle && { ...middle, name: `the most typical one, ${middle.name}` };
  const answer = decision.answer !== undefined && !chosen && { id: "answer", name: "the answer", text: decision.answer };
  const others = members.filter(({ id }) => id !== first?.id);
  return [first, answer, ...others, { id: "none", name: "nothing" }].filter(Boolean);
}

function baseOf(decision, bases) {
  return bases.find(({ id }) => id === chosenBases.get(runOf(decision))) ?? bases[0];
}

function card(call, classes, base) {
  const group = classes.get(call.key);
  const facts = [
    call.key !== undefined && ["Key", h("span", { class: "key" }, call.key, group && h("span", { class: "class" }, `class ${group}`))],
    call.score !== undefined && ["Score", number(call.score)],
    call.weight !== 1 && ["Weight", number(call.weight)],
    base.text !== undefined && call.content !== undefined && base.call !== call && ["Likeness", percent(similarity(base.text, call.content))],
  ].filter(Boolean);
  return h("li", { class: call.chosen ? "card is-chosen" : "card" },
    h("div", { class: "card-head" }, h("h4", {}, call.model),
      call.chosen ? h("span", { class: "badge chosen" }, icon("chosen"), "chosen") : resultBadge(call)),
    facts.length > 0 && h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    call.content !== undefined && h("div", { class: "text", tabindex: "0", role: "region", "aria-label": `What ${call.model} said` },
      text(call, base)));
}

function text(call, base) {
  const runs = base.text === undefined || base.call === call ? null : difference(base.text, call.content);
  if (runs === null || !isAlike(runs)) return call.content;
  const marks = { added: "ins", missing: "del" };
  return runs.map(({ kind, text: words }) => (kind === "same" ? words : h(marks[kind], {}, words)));
}

// Where most words differ, marks would hide the text instead of explaining it.
function isAlike(runs) {
  const length = (...kinds) => runs.filter(({ kind }) => kinds.includes(kind)).reduce((sum, { text: words }) => sum + words.length, 0);
  return length("same") >= 0.4 * Math.max(length("same", "added"), length("same", "missing"));
}

// Equal keys are equal answers: the largest class is A. A key that nobody shares makes no class.
export function classesOf(members) {
  const sizes = new Map();
  for (const { key } of members) if (key !== undefined) sizes.set(key, (sizes.get(key) ?? 0) + 1);
  const shared = [...sizes].filter(([, size]) => size > 1).sort(([, a], [, b]) => b - a);
  return new Map(shared.map(([key], index) => [key, String.fromCharCode(65 + index)]));
}
