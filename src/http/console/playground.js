// Asks an alias as a caller would, and shows the run beside the answer.

import { runSections } from "./decision.js";
import { h, render } from "./dom.js";
import { isRunning, runOf } from "./feed.js";
import { duration } from "./format.js";

// What the caller is told about its answer.
const HEADERS = ["outcome", "strategy", "panel", "responses", "agreement"];

export class Playground {
  title = "Playground";
  #feed;
  #asked = null;
  #models = null;

  constructor(feed, view) {
    this.#feed = feed;
    this.alias = h("select", { id: "ask-alias", required: true });
    this.question = h("textarea", { id: "ask-question", rows: "4", required: true, placeholder: "Ask something" });
    this.system = h("textarea", { id: "ask-system", rows: "2" });
    this.temperature = h("input", { id: "ask-temperature", type: "number", min: "0", max: "2", step: "0.1", inputmode: "decimal" });
    this.maxTokens = h("input", { id: "ask-max-tokens", type: "number", min: "1", step: "1", inputmode: "numeric" });
    this.key = h("input", { id: "ask-key", type: "password", autocomplete: "off" });
    this.stream = h("input", { id: "ask-stream", type: "checkbox", checked: true });
    this.send = h("button", { type: "submit", class: "primary" }, "Ask");
    this.stop = h("button", { type: "button", hidden: true, on: { click: () => this.#asked?.abort.abort() } }, "Stop");
    this.hint = h("p", { class: "soft" });
    this.answer = h("section", { class: "answer", "aria-label": "Answer" });
    this.status = h("p", { class: "unseen", role: "status" });
    this.run = h("section", { class: "run", "aria-label": "The run" });
    view.append(h("div", { class: "playground" }, h("div", { class: "asking" }, h("h1", {}, "Playground"), this.#form(), this.answer, this.status), this.run));
  }

  show(_segments, query) {
    this.#listModels(query.get("alias"));
    this.draw();
  }

  escape() {
    return false;
  }

  isMoving() {
    const decision = this.#decision();
    return this.#asked?.state === "asking" || (decision !== undefined && isRunning(decision));
  }

  draw() {
    const asking = this.#asked?.state === "asking";
    this.send.disabled = asking;
    this.stop.hidden = !asking;
    render(this.answer, this.#asked && this.#answerParts(this.#asked));
    render(this.status, this.#asked && { asking: "Asked.", done: "The answer is complete.", stopped: "Stopped.", failed: "The question failed." }[this.#asked.state]);
    const decision = this.#decision();
    render(this.run, decision
      ? h("div", { key: runOf(decision), class: "sections" },
          h("div", { class: "section-head" }, h("h2", {}, "The run"),
            h("a", { href: `#/decisions/${runOf(decision).split("/").map(encodeURIComponent).join("/")}` }, "Open the decision")),
          runSections(decision, () => this.draw()))
      : h("p", { class: "soft empty" }, this.#asked ? "Waiting for the run to show." : "The run appears here while it happens: who is asked, who answers when, and why the answer is what it is."));
  }

  #form() {
    const field = (control, label, hint) => h("p", { class: "field" }, h("label", { for: control.id }, label), control, hint && h("span", { class: "soft" }, hint));
    return h("form", { on: { submit: (event) => this.#submit(event), keydown: (event) => this.#submitByKey(event) } },
      field(this.alias, "Model"), this.hint,
      field(this.question, "Question"),
      h("details", {}, h("summary", {}, "More"),
        field(this.system, "System message"),
        h("div", { class: "fields" }, field(this.temperature, "Temperature"), field(this.maxTokens, "Maximum of tokens")),
        field(this.key, "API key", "sent as a caller's, kept nowhere"),
        h("p", { class: "field check" }, this.stream, h("label", { for: this.stream.id }, "Stream the answer"))),
      h("p", { class: "buttons" }, this.send, this.stop, h("span", { class: "soft keys" }, "Ctrl + Enter")));
  }

  async #listModels(wanted) {
    if (this.#models) return;
    try {
      const answer = await fetch("v1/models", { headers: this.#credentials() });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      this.#models = (await answer.json()).data.map(({ id }) => id);
    } catch (error) {
      this.#models = null;
      render(this.hint, `The models could not be listed: ${error.message}.`);
      return;
    }
    render(this.hint);
    render(this.alias, this.#models.map((id) => h("option", { value: id, selected: id === wanted }, id)));
  }

  #submitByKey(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.requestSubmit();
  }

  #submit(event) {
    event.preventDefault();
    if (this.#asked?.state === "asking") return;
    const asked = new Asked();
    this.#asked = asked;
    this.draw();
    asked.ask(this.#body(), this.#credentials(), () => this.draw());
  }

  #body() {
    const system = this.system.value.trim();
    const body = {
      model: this.alias.value,
      messages: [...(system ? [{ role: "system", content: system }] : []), { role: "user", content: this.question.value }],
    };
    if (this.temperature.value) body.temperature = Number(this.temperature.value);
    if (this.maxTokens.value) body.max_tokens = Number(this.maxTokens.value);
    if (this.stream.checked) Object.assign(body, { stream: true, stream_options: { include_usage: true } });
    return body;
  }

  #credentials() {
    return this.key.value ? { authorization: `Bearer ${this.key.value}` } : {};
  }

  #decision() {
    return this.#asked ? this.#feed.ofRequest(this.#asked.id) : undefined;
  }

  #answerParts({ state, text, thought, error, headers, began, ended }) {
    const took = duration((ended ?? performance.now()) - began);
    const states = { asking: text ? `answering, ${took}` : `waiting, ${took}`, done: `done after ${took}`, stopped: `stopped after ${took}`, failed: `failed after ${took}` };
    const told = HEADERS.filter((name) => headers[name]).map((name) => h("div", {}, h("dt", {}, name), h("dd", {}, headers[name])));
    return [
      h("div", { class: "section-head" }, h("h2", {}, "Answer"), h("span", { class: "soft", id: "ask-state" }, states[state])),
      told.length > 0 && h("dl", { class: "facts" }, told),
      thought && h("details", {}, h("summary", {}, "Thinking"), h("div", { class: "text" }, thought)),
      text && h("div", { class: `text${state === "asking" ? " is-arriving" : ""}`, tabindex: "0", role: "region", "aria-label": "The answer's text", "aria-busy": String(state === "asking") }, text),
      error && h("p", { class: "note bad", role: "alert" }, error),
    ];
  }
}

// One question and what has come of it.
class Asked {
  id = `console-${randomWord()}`;
  state = "asking";
  text = "";
  thought = "";
  error = "";
  headers = {};
  began = performance.now();
  abort = new AbortController();

  async ask(body, credentials, changed) {
    try {
      const answer = await fetch("v1/chat/completions", {
        method: "POST",
        headers: { "content-type": "application/json", "x-request-id": this.id, ...credentials },
        body: JSON.stringify(body),
        signal: this.abort.signal,
      });
      this.headers = Object.fromEntries(HEADERS.map((name) => [name, answer.headers.get(`x-ensemble-${name}`)]));
      if (answer.headers.get("content-type")?.startsWith("text/event-stream")) await this.#readStream(answer.body, changed);
      else this.#readWhole(await answer.text(), answer.status);
      this.state = this.error ? "failed" : "done";
    } catch (error) {
      this.state = this.abort.signal.aborted ? "stopped" : "failed";
      if (this.state === "failed") this.error = `The answer broke off: ${error.message}.`;
    }
    this.ended = performance.now();
    changed();
  }

  #readWhole(text, status) {
    let told = {};
    try {
      told = JSON.parse(text);
    } catch {
      told = { error: { message: text } };
    }
    if (told.error) this.error = `${status}: ${told.error.message ?? told.error}`;
    else this.#take(told.choices?.[0]?.message);
  }

  async #readStream(body, changed) {
    let [pending, done] = ["", false];
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (pending + part.value).split(/\r?\n/);
      pending = lines.pop();
      for (const line of lines.filter((one) => one.startsWith("data:"))) {
        const data = line.slice("data:".length).trim();
        if (data === "[DONE]") done = true;
        else this.#readEvent(JSON.parse(data));
      }
      changed();
    }
    if (!done && !this.error) this.error = "The stream ended before its end.";
  }

  #readEvent({ error, choices }) {
    if (error) this.error = error.message;
    else this.#take(choices?.[0]?.delta);
  }

  #take(message) {
    this.text += message?.content ?? "";
    this.thought += message?.reasoning_content ?? "";
    for (const call of message?.tool_calls ?? []) this.text += JSON.stringify(call.function);
  }
}

// crypto.randomUUID is not there on pages that came without TLS from another machine.
function randomWord() {
  return [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
