// Decisions as they come: the recent ones by a request, the rest and what goes on now by an event stream.

const RECENT = 200;
const KEPT = 500;
// Between two tries to connect, in ms.
const RETRY = 3000;

// Which run a decision is of, while it goes on and afterwards. Processes count their runs from one, and callers may
// give two requests the same id.
export function runOf(decision) {
  return `${decision.started_at_ms}/${decision.run}`;
}

export function isRunning(decision) {
  return decision.outcome === "running";
}

// How far a run has come, in ms; one that goes on is older than its last news, unless time stands still for it.
export function ageOf(decision) {
  const since = isRunning(decision) ? performance.now() - decision.heardAt : 0;
  return decision.total_ms + Math.max(0, since);
}

// A decision for which time stands still.
export function stopped(decision) {
  return { ...decision, total_ms: ageOf(decision), heardAt: Infinity };
}

// What is absent is null on the wire and simply not there in here.
function read(json) {
  return JSON.parse(json, (_name, value) => value ?? undefined);
}

// Tells `change` with the decision that is new or has changed, and `state` when the connection has.
export class Feed extends EventTarget {
  state = "connecting";
  #byRun = new Map();
  #source = null;

  start() {
    const source = new EventSource("v1/decisions/stream");
    this.#source = source;
    source.addEventListener("open", () => this.#opened());
    source.addEventListener("running", (event) => this.#hear(read(event.data)));
    source.addEventListener("decision", (event) => this.#hear(read(event.data)));
    // What was too much for the stream is among the recent ones.
    source.addEventListener("missed", () => this.#catchUp());
    source.addEventListener("error", () => {
      this.#enter("broken");
      // The browser tries again by itself, unless it was answered with something else than a stream.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.#source === source && this.start(), RETRY);
    });
  }

  // A page that nobody looks at makes no work for Consort.
  rest() {
    this.#source?.close();
    this.#source = null;
    this.#enter("resting");
  }

  // The newest first.
  decisions() {
    const byBeginning = (a, b) => b.started_at_ms - a.started_at_ms || b.sequence - a.sequence;
    return [...this.#byRun.values()].sort(byBeginning);
  }

  find(run) {
    return this.#byRun.get(run);
  }

  ofRequest(id) {
    return this.decisions().find((decision) => decision.request_id === id);
  }

  // First the stream, then the past: nothing falls between them, and what comes twice counts once.
  #opened() {
    // Runs whose end was missed would go on for ever here.
    for (const [run, decision] of this.#byRun) if (isRunning(decision)) this.#byRun.delete(run);
    return this.#catchUp();
  }

  async #catchUp() {
    try {
      const answer = await fetch(`v1/decisions?limit=${RECENT}`);
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const { decisions } = read(await answer.text());
      for (const decision of decisions) this.#keep(decision);
      this.#enter("live");
      this.#tell(undefined);
    } catch (error) {
      console.warn("the recent decisions could not be read:", error.message);
      this.#enter("broken");
    }
  }

  #hear(decision) {
    if (this.#keep(decision)) this.#tell(decision);
  }

  #keep(decision) {
    const run = runOf(decision);
    const known = this.#byRun.get(run);
    if (known && !isRunning(known) && isRunning(decision)) return false;
    decision.heardAt = performance.now();
    this.#byRun.set(run, decision);
    if (this.#byRun.size > KEPT) {
      const oldest = this.decisions().at(-1);
      this.#byRun.delete(runOf(oldest));
    }
    return true;
  }

  #enter(state) {
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  #tell(decision) {
    this.dispatchEvent(new CustomEvent("change", { detail: decision }));
  }
}
