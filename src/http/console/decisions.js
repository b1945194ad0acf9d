// The list of decisions, live, and the one that is opened beside it.

import { decisionSections } from "./decision.js";
import { h, icon, render, renderItems, unseen } from "./dom.js";
import { ageOf, isRunning, runOf, stopped } from "./feed.js";
import { clock, count, duration, moment, plural, usd } from "./format.js";
import { isUnderWay } from "./timeline.js";
import { outcomeBadge, OUTCOME_WORDS, resultOf, spoken } from "./words.js";

const HEADINGS = [
  ["began", "Began", "words"], ["alias", "Alias", "words"], ["outcome", "Outcome", "words"], ["strategy", "Strategy", "words"],
  ["panel", "Panel", "words"], ["took", "Took", "number"], ["tokens", "Tokens", "number"], ["cost", "Cost", "number"],
];

export class Decisions {
  title = "Decisions";
  #feed;
  #view;
  #route = { run: null, alias: "", outcome: "" };
  // What was there when the reader paused, or null.
  #frozen = null;
  // The row that the keyboard is at.
  #cursor = null;

  constructor(feed, view) {
    this.#feed = feed;
    this.#view = view;
    this.table = h("table", { role: "table", "aria-label": "Decisions, the newest first", on: { keydown: (event) => this.#move(event) } },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" },
        HEADINGS.map(([name, text, kind]) => h("th", { scope: "col", role: "columnheader", class: `${name} ${kind}` }, text)))));
    this.rows = h("tbody", { role: "rowgroup" });
    this.table.append(this.rows);
    this.bar = h("div", { class: "bar" });
    this.empty = h("div", { class: "empty" });
    this.detail = h("section", { class: "detail", "aria-label": "The opened decision" });
    this.board = h("div", { class: "board" },
      h("section", { class: "list", "aria-label": "List" }, this.bar, this.table, this.empty), this.detail);
    view.append(this.board);
  }

  // `segments` is the run, if one is opened; `query` the filters.
  show(segments, query, isFirst) {
    const run = segments.length > 1 ? `${segments[0]}/${segments.slice(1).join("/")}` : null;
    const left = this.#route.run;
    this.#route = { run, alias: query.get("alias") ?? "", outcome: query.get("outcome") ?? "" };
    this.title = run ? "Decision" : "Decisions";
    if (run) this.#cursor = run;
    this.draw();
    if (isFirst) return;
    if (run && run !== left) this.detail.querySelector("h2")?.focus();
    if (!run && left) this.rows.querySelector("a[tabindex='0']")?.focus();
  }

  // Whether Escape closed something.
  escape() {
    if (!this.#route.run) return false;
    location.hash = this.#hash({ run: null });
    return true;
  }

  isMoving() {
    return this.#shown().some(isRunning);
  }

  draw() {
    const all = this.#shown();
    const shown = all.filter((decision) => this.#matches(decision));
    render(this.bar, this.#controls(all, shown));
    this.#drawRows(shown);
    render(this.empty, all.length === 0 ? this.#nothingYet() : shown.length === 0 && `None of ${plural(all.length, "decision")} matches.`);
    this.table.toggleAttribute("hidden", shown.length === 0);
    this.board.classList.toggle("has-detail", this.#route.run !== null);
    this.#drawDetail();
  }

  #shown() {
    return this.#frozen ?? this.#feed.decisions();
  }

  #matches({ alias, outcome }) {
    return (!this.#route.alias || alias === this.#route.alias) && (!this.#route.outcome || outcome === this.#route.outcome);
  }

  #hash(changes) {
    const { run, alias, outcome } = { ...this.#route, ...changes };
    const query = new URLSearchParams(Object.entries({ alias, outcome }).filter(([, value]) => value));
    const path = run ? `/${run.split("/").map(encodeURIComponent).join("/")}` : "";
    return `#/decisions${path}${query.size > 0 ? `?${query}` : ""}`;
  }

  #controls(all, shown) {
    const aliases = [...new Set([...all.map(({ alias }) => alias), this.#route.alias])].filter(Boolean).sort();
    const filter = (name, label, none, values) => h("label", {}, unseen(label),
      h("select", { id: `filter-${name}`, on: { change: ({ currentTarget }) => { location.hash = this.#hash({ [name]: currentTarget.value }); } } },
        h("option", { value: "" }, none),
        values.map((value) => h("option", { value, selected: this.#route[name] === value }, spoken(value)))));
    const running = shown.filter(isRunning).length;
    return [
      h("h1", {}, "Decisions"),
      h("p", { class: "soft tally" }, `${count(shown.length)} shown${running > 0 ? `, ${running} running` : ""}`),
      filter("alias", "Alias", "every alias", aliases),
      filter("outcome", "Outcome", "every outcome", OUTCOME_WORDS),
      this.#pauseButton(),
    ];
  }

  #pauseButton() {
    const known = new Set(this.#frozen?.map(runOf));
    const fresh = this.#frozen ? this.#feed.decisions().filter((decision) => !known.has(runOf(decision))).length : 0;
    const click = () => {
      this.#frozen = this.#frozen ? null : this.#feed.decisions().map(stopped);
      this.draw();
    };
    const text = this.#frozen ? `Resume${fresh > 0 ? ` (${fresh} new)` : ""}` : "Pause";
    return h("button", { type: "button", id: "pause", on: { click } }, text);
  }

  #nothingYet() {
    return [
      h("p", {}, "No decisions yet."),
      h("p", { class: "soft" }, "Every run of an ensemble is listed here as it happens. Ask an alias through Envoy, or in the ",
        h("a", { href: "#/playground" }, "playground"), "."),
    ];
  }

  #drawRows(shown) {
    const runs = shown.map(runOf);
    if (!runs.includes(this.#cursor)) this.#cursor = this.#route.run && runs.includes(this.#route.run) ? this.#route.run : null;
    const stop = this.#cursor ?? runs[0];
    const items = shown.map((decision, index) => ({
      decision,
      run: runs[index],
      isStop: runs[index] === stop,
      isOpen: runs[index] === this.#route.run,
      href: this.#hash({ run: runs[index] }),
    }));
    const isSame = (a, b) =>
      a.decision === b.decision && a.isStop === b.isStop && a.isOpen === b.isOpen && a.href === b.href && !isRunning(b.decision);
    renderItems(this.rows, items, (item) => item.run, isSame, (item) => this.#row(item));
  }

  #row({ decision, run, isStop, isOpen, href }) {
    const cells = {
      began: h("time", { datetime: new Date(decision.started_at_ms).toISOString(), title: moment(decision.started_at_ms) }, clock(decision.started_at_ms)),
      alias: h("a", { href, tabindex: isStop ? "0" : "-1", "aria-current": isOpen ? "true" : null, on: { focus: () => { this.#cursor = run; } } },
        decision.alias, unseen(`, ${spoken(decision.outcome)}, ${clock(decision.started_at_ms)}`)),
      outcome: [outcomeBadge(decision.outcome), decision.error_code && h("span", { class: "cause" }, spoken(decision.error_code))],
      strategy: decision.strategy,
      panel: strip(decision),
      took: duration(ageOf(decision)),
      tokens: count(decision.usage?.total_tokens),
      cost: usd(decision.cost_usd),
    };
    return h("tr", { role: "row", class: `${isOpen ? "is-open" : ""}${isRunning(decision) ? " is-running" : ""}`.trim() || null },
      HEADINGS.map(([name, , kind]) => h("td", { role: "cell", class: `${name} ${kind}` }, cells[name])));
  }

  #drawDetail() {
    const { run } = this.#route;
    if (!run) return render(this.detail);
    const live = this.#feed.find(run);
    const close = h("a", { class: "close", href: this.#hash({ run: null }) }, icon("failed"), unseen("Close this decision"));
    if (!live) {
      const known = this.#feed.state !== "connecting";
      return render(this.detail, h("div", { class: "detail-head" }, h("h2", { tabindex: "-1" }, "Decision"), close),
        h("p", { class: "note" }, known ? "This decision is not among the recent ones that Consort keeps." : "Looking for it."));
    }
    const subject = h("h2", { tabindex: "-1" }, live.alias, h("span", { class: "soft" }, ` ${clock(live.started_at_ms)}`));
    return render(this.detail, h("div", { class: "detail-head" }, subject, close),
      h("div", { key: run, class: "sections" }, decisionSections(live, () => this.draw())));
  }

  // The list is one stop of the Tab key; arrows move within it.
  #move(event) {
    const links = [...this.rows.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (at < 0 || to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    links[Math.min(links.length - 1, Math.max(0, to))].focus();
    this.draw();
  }
}

// One shape per member, the judges' behind a gap: how the calls of a run ended, at a glance.
function strip(decision) {
  const one = (call) => {
    const word = isUnderWay(call, decision) ? "running" : call.result;
    const { icon: shape, tone } = resultOf(word);
    return h("span", { class: `pip ${tone}${call.chosen ? " is-chosen" : ""}`, title: `${call.model}: ${spoken(word)}` },
      icon(call.chosen ? "chosen" : shape));
  };
  const usable = `${decision.quorum_got} usable of ${decision.members.length}`;
  return h("span", { class: "strip" }, unseen(usable), h("span", { "aria-hidden": "true" }, decision.members.map(one)),
    decision.judges.length > 0 && h("span", { "aria-hidden": "true", class: "judges" }, decision.judges.map(one)));
}
