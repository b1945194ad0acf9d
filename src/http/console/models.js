// How the direct models are: called, cooling down or probed; their limits; and which ensembles there are.

import { h, icon, render } from "./dom.js";
import { count, long } from "./format.js";
import { spoken } from "./words.js";

// Between two looks, in ms.
const EVERY = 2000;

const STATES = {
  called: { icon: "ok", tone: "good" },
  cooling: { icon: "cooling", tone: "cold" },
  probing: { icon: "running", tone: "fair" },
};

export class Models {
  title = "Models";
  #view;
  #told = null;
  #error = "";
  #timer = null;
  #heardAt = 0;

  constructor(view) {
    this.#view = h("div", { class: "models" });
    view.append(this.#view);
  }

  show() {
    this.draw();
    if (this.#timer === null) this.#look();
  }

  hide() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  escape() {
    return false;
  }

  // Countdowns.
  isMoving() {
    return this.#told?.models.some(({ state }) => state === "cooling") ?? false;
  }

  draw() {
    render(this.#view, h("h1", {}, "Models"), this.#error && h("p", { class: "note bad" }, this.#error),
      this.#told && [this.#directModels(this.#told.models), ensembles(this.#told.ensembles)]);
  }

  async #look() {
    // Before the first await, so that leaving the view ends the looking.
    this.#timer = setTimeout(() => this.#look(), EVERY);
    if (document.hidden) return;
    try {
      const answer = await fetch("models");
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      this.#told = await answer.json();
      this.#heardAt = performance.now();
      this.#error = "";
    } catch (error) {
      this.#error = `The models' state could not be read: ${error.message}.`;
    }
    this.draw();
  }

  #directModels(models) {
    return h("section", { "aria-label": "Direct models" }, h("h2", {}, "Direct models"),
      models.length === 0 ? h("p", { class: "soft" }, "There are none.") : h("ul", { class: "cards" }, models.map((model) => this.#card(model))));
  }

  #card(model) {
    const { icon: shape, tone } = STATES[model.state] ?? { icon: "warning", tone: "quiet" };
    const facts = [
      ["Provider", model.provider],
      model.failures > 0 && ["Failures in a row", count(model.failures)],
      model.last_error && ["Last error", spoken(model.last_error)],
    ].filter(Boolean);
    return h("li", { class: "card", key: model.name },
      h("div", { class: "card-head" }, h("h3", {}, model.name),
        h("span", { class: `badge ${tone}` }, icon(shape), spoken(model.state), this.#countdown(model))),
      h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      limits(model.limits));
  }

  // The server tells how long from then on; its clock and the reader's may differ.
  #countdown({ state, left_s: left }) {
    if (state !== "cooling" || left === undefined || left === null) return null;
    const now = Math.max(0, Math.ceil(left - (performance.now() - this.#heardAt) / 1000));
    return h("span", { class: "countdown" }, `for ${long(now)}`);
  }
}

// Each limit with how much of it is used, as far as that is known.
function limits(told) {
  const list = Object.entries(told ?? {}).map(([name, one]) => (typeof one === "object" && one !== null ? { name, ...one } : { name, limit: one }));
  const set = list.filter(({ limit }) => limit !== undefined && limit !== null);
  if (set.length === 0) return null;
  return h("dl", { class: "limits" }, set.map(({ name, used, limit }) =>
    h("div", {}, h("dt", {}, spoken(name)), h("dd", {},
      typeof used === "number" && h("meter", { min: "0", max: String(limit), value: String(used), "aria-label": `${spoken(name)} used` }),
      h("span", { class: "number" }, typeof used !== "number" ? count(limit) : `${count(used)} of ${count(limit)}`)))));
}

function ensembles(list) {
  return h("section", { "aria-label": "Ensembles" }, h("h2", {}, "Ensembles"),
    list.length === 0 ? h("p", { class: "soft" }, "There are none.") : h("ul", { class: "cards" }, list.map(ensemble)));
}

function ensemble({ name, strategy, members, quorum }) {
  return h("li", { class: "card", key: name },
    h("div", { class: "card-head" }, h("h3", {}, name), h("span", { class: "badge quiet" }, strategy)),
    h("dl", { class: "facts" },
      h("div", {}, h("dt", {}, "Panel"), h("dd", {}, members.join(", "))),
      h("div", {}, h("dt", {}, "Quorum"), h("dd", {}, `${count(quorum)} of ${count(members.length)}`))),
    h("p", { class: "links" }, h("a", { href: `#/playground?alias=${encodeURIComponent(name)}` }, "Ask it"), " ",
      h("a", { href: `#/decisions?alias=${encodeURIComponent(name)}` }, "Its decisions")));
}
