// Walks through the console as its readers do: walk.mjs PACKAGES CHROMIUM PICTURES WAY CONSOLE ENVOY. The first thing
// that is not as it should be ends it.
// PACKAGES is a directory with node_modules: import would look beside this file.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

import { barriers } from "./barriers.mjs";

const [packages, program, pictures, way, address, envoy] = process.argv.slice(2);
const { chromium } = createRequire(`${packages}/`)("playwright-core");

const WIDTHS = { wide: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };
const LIGHTS = ["light", "dark"];
const SPOKEN = "Air scatters **short** waves <b>more</b> than long ones.";

// Asks through Envoy, as any caller; `answered` tells whether the answer has come.
function ask(model, id) {
  const asked = { answered: false };
  const headers = { "content-type": "application/json", "x-request-id": id };
  const body = JSON.stringify({ model, messages: [{ role: "user", content: "Why is the sky blue?" }] });
  asked.answer = fetch(`${envoy}/v1/chat/completions`, { method: "POST", headers, body }).then(async (answer) => {
    await answer.text();
    asked.answered = true;
    return answer.status;
  });
  return asked;
}

// A reader's page, and what it must never do.
class Reader {
  complaints = [];

  static async open(browser, form, light, options = {}) {
    const context = await browser.newContext({ viewport: WIDTHS[form], colorScheme: light, ...options });
    const reader = new Reader();
    reader.name = `${form}-${light}`;
    reader.isPhone = form === "phone";
    reader.page = await context.newPage();
    reader.page.setDefaultTimeout(15_000);
    reader.page.on("console", (line) => ["error", "warning"].includes(line.type()) && reader.complaints.push(line.text()));
    reader.page.on("pageerror", (error) => reader.complaints.push(error.stack));
    reader.page.on("dialog", (dialog) => reader.complaints.push(`a dialog: ${dialog.message()}`) && dialog.dismiss());
    context.on("request", (request) => {
      if (new URL(request.url()).origin !== new URL(address).origin) reader.complaints.push(`asked ${request.url()}`);
    });
    return reader;
  }

  async go(hash) {
    await this.page.goto(address + hash);
    await this.page.getByText("live", { exact: true }).waitFor();
  }

  // A picture for people, and what can be told without eyes.
  async look(view) {
    await this.page.screenshot({ path: `${pictures}/${view}-${this.name}.png`, fullPage: this.isPhone });
    const name = `${view}, ${this.name}`;
    const wider = await this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(wider, 0, `${name}: wider than the screen`);
    assert.deepEqual(await this.page.evaluate(barriers), [], name);
  }

  async leave() {
    assert.deepEqual(this.complaints, [], this.name);
    await this.page.context().close();
  }
}

// What the reader sees of a run, row by row of its timeline.
function timeline(page) {
  return page.locator(".timeline .call").evaluateAll((calls) => calls.map((call) =>
    `${call.querySelector(".name").textContent} ${call.querySelector(".word").textContent}`));
}

async function decisions(reader, round) {
  const { page } = reader;
  await reader.go("#/decisions?alias=vote");
  const id = `run-${reader.name}`;
  const run = ask("vote", id);

  // It is listed while it goes on, and opened by the keyboard.
  const row = page.locator("tbody tr.is-running");
  await row.waitFor();
  assert.equal(run.answered, false, "the run is seen before its caller has the answer");
  assert.match(await row.innerText(), /vote[^]*running/);
  await reader.look("decisions-running");
  await row.locator("a").focus();
  await page.keyboard.press("Enter");
  const title = page.locator(".detail h2");
  await title.waitFor();
  assert.equal(await title.evaluate((heading) => heading === document.activeElement), true, "the reader is taken to it");
  await page.locator(".timeline .call .word", { hasText: "usable" }).first().waitFor();
  assert.equal(run.answered, false);
  assert.match((await timeline(page)).join(), /a usable,b running/);
  await reader.look("decision-running");

  // Its end comes by itself: three candidates, one of them chosen, the words that differ marked.
  await page.locator(".why", { hasText: "a and b gave the same answer, the largest class (67 %); a's was returned." }).waitFor();
  assert.equal(await run.answer, 200);
  assert.deepEqual(await timeline(page), ["a usable", "b usable", "c usable"]);
  const cards = page.locator(".candidates .card");
  assert.deepEqual(await cards.locator("h4").allInnerTexts(), ["a", "b", "c"]);
  assert.deepEqual(await page.locator(".candidates .card.is-chosen h4").allInnerTexts(), ["a"]);
  assert.match(await cards.nth(0).innerText(), /chosen/);
  assert.deepEqual(await cards.nth(1).locator("ins, del").allInnerTexts(), ["is", "looks", "sunlight", "light"]);
  assert.match(await cards.nth(2).innerText(), /<img src=x onerror=alert\(1\)><script>alert\(2\)<\/script> It is the sea/);
  assert.equal(await page.locator("main img, main script, main b").count(), 0, "what a model says is text");
  assert.match(await page.locator(".timeline .mark").innerText(), /^quorum \d/);
  assert.match(await page.locator(".calls tfoot").innerText(), /Sum\s+3 asked/);
  assert.match(await page.locator(".exchange").innerText(), /Why is the sky blue\?/);
  await page.locator(".compare select").selectOption({ label: "nothing" });
  assert.equal(await page.locator(".candidates").locator("ins, del").count(), 0);
  await reader.look("decision");

  // The address alone leads there again; Escape leads back to where the reader was in the list.
  await page.reload();
  await page.locator(".candidates .card.is-chosen").waitFor();
  await page.keyboard.press("Escape");
  await page.locator(".board:not(.has-detail)").waitFor();
  const links = page.locator("tbody tr a");
  assert.equal(await links.count(), round + 1, "each run is listed once");
  assert.equal(await links.first().evaluate((link) => link === document.activeElement), true);
  await page.keyboard.press("End");
  assert.equal(await links.last().evaluate((link) => link === document.activeElement), true, "arrows move in the list");
  await reader.look("decisions");

  // Who pauses is told what is new, and sees it on resuming. Filters hide what does not match.
  await page.locator("#pause").click();
  await ask("broken", `${id}-broken`).answer;
  await page.getByRole("combobox", { name: "Alias" }).selectOption("");
  await page.getByRole("button", { name: "Resume (1 new)" }).click();
  await page.getByRole("combobox", { name: "Outcome" }).selectOption("failed");
  await page.locator("tbody tr", { hasText: "broken" }).first().waitFor();
  assert.match(page.url(), /\?outcome=failed$/);
  assert.equal(await page.locator("tbody tr", { hasText: "vote" }).count(), 0);
  await page.getByRole("combobox", { name: "Outcome" }).selectOption("single");
  await page.getByText(/^None of \d+ decisions matches\.$/).waitFor();
}

async function playground(reader) {
  const { page } = reader;
  await reader.go("#/playground");
  await page.getByLabel("Model").selectOption("research-ensemble");
  await page.getByLabel("Question").fill("Why is the sky blue?");
  await page.keyboard.press("Control+Enter");

  // The run shows while nothing is answered yet, the answer grows while the judge speaks.
  await page.locator(".run .call .word", { hasText: "running" }).first().waitFor();
  assert.equal(await page.locator(".answer .text").count(), 0);
  await reader.look("playground-asking");
  await page.locator(".answer .text", { hasText: "Air scatters" }).waitFor();
  assert.notEqual(await page.locator(".answer .text").innerText(), SPOKEN, "a part of it is there before the rest");
  assert.match((await timeline(page)).join(), /judge running/);
  await reader.look("playground-answering");
  await page.locator("#ask-state", { hasText: /^done after/ }).waitFor();
  assert.equal(await page.locator(".answer .text").innerText(), SPOKEN);
  assert.match(await page.locator(".answer .facts").innerText(), /outcome\s+full/);
  await page.locator(".run .why", { hasText: "judge wrote the answer from 3 candidates." }).waitFor();
  assert.deepEqual(await page.locator(".run .card h4").allInnerTexts(), ["a", "b", "c"]);
  await reader.look("playground");

  // Who stops is a caller who leaves.
  await page.getByRole("button", { name: "Ask", exact: true }).click();
  await page.locator(".run .call .word", { hasText: "running" }).first().waitFor();
  await page.getByRole("button", { name: "Stop" }).click();
  await page.locator(".run .why", { hasText: "cancelled The caller left after" }).waitFor();

  // An error is told in the words that every caller gets.
  await page.getByLabel("Model").selectOption("broken");
  await page.getByRole("button", { name: "Ask", exact: true }).click();
  await page.getByRole("alert").waitFor();
  assert.match(await page.getByRole("alert").innerText(), /^50[23]: /);
  // The browser says so too, in its own words.
  assert.match(reader.complaints.shift(), /the server responded with a status of 50[23]/);
  await page.getByRole("link", { name: "Open the decision" }).click();
  await page.locator(".detail h2", { hasText: "broken" }).waitFor();
}

async function models(reader) {
  const { page } = reader;
  // Three failures in a row let it cool down.
  for (let n = 0; n < 3; n += 1) await ask("broken", `down-${n}`).answer;
  await reader.go("#/models");
  const card = (name) => page.locator(".card").filter({ has: page.getByRole("heading", { name, exact: true }) });
  await card("a").getByText("called").waitFor();
  const countdown = card("down").locator(".countdown");
  await countdown.waitFor();
  const told = await countdown.innerText();
  assert.match(told, /^for \d+ (s|min)/);
  await page.waitForFunction(([element, before]) => element.textContent !== before, [await countdown.elementHandle(), told]);
  assert.match(await card("down").innerText(), /Last error\s+server error/);
  assert.match(await card("down").innerText(), /\d+ of 600/);
  assert.equal(await card("down").locator("meter").count(), 1);
  assert.match(await card("research-ensemble").innerText(), /a, b, c[^]*2 of 3/);
  await reader.look("models");
  await card("vote").getByRole("link", { name: "Ask it" }).click();
  await page.getByLabel("Question").waitFor();
  await page.waitForFunction(() => document.querySelector("#ask-alias").value === "vote");
}

// What the page is made of, in the browser that it is made for.
async function parts(browser) {
  const reader = await Reader.open(browser, "wide", "light");
  await reader.go("");
  const { page } = reader;
  // Differences lead from one text to the other, whatever the texts.
  const wrong = await page.evaluate(async () => {
    const { difference } = await import("./console/compare.js");
    const words = ["a", "b", "c", " ", "\n", ".", "é", "漢", "👍🏽"];
    let seed = 7;
    const text = () => Array.from({ length: (seed = (seed * 48_271) % 2_147_483_647) % 30 }, () => words[(seed = (seed * 48_271) % 2_147_483_647) % words.length]).join("");
    const side = (runs, ...kinds) => runs.filter(({ kind }) => kinds.includes(kind)).map((run) => run.text).join("");
    const pairs = Array.from({ length: 300 }, () => [text(), text()]);
    return pairs.filter(([base, other]) => {
      const runs = difference(base, other);
      return side(runs, "same", "missing") !== base || side(runs, "same", "added") !== other;
    });
  });
  assert.deepEqual(wrong, []);
  // A call's stretches follow each other: what failed, the pause, what was waited for, what was said.
  const stretches = await page.evaluate(async () => {
    const { segments } = await import("./console/timeline.js");
    const tries = [
      { started_ms: 30, elapsed_ms: 100, result: "rate_limited", status: 429 },
      { started_ms: 200, elapsed_ms: 300, result: "answered" },
    ];
    const told = { outcome: "full", total_ms: 600 };
    const call = (more) => ({ result: "usable", started_ms: 10, elapsed_ms: 490, queued_ms: 20, tries: [], ...more });
    const drawn = (more) => segments(call(more), told, 600).map(({ kind, from, to }) => `${kind} ${from}-${to}`).join(", ");
    return {
      retried: drawn({ tries, first_byte_ms: 350 }),
      silent: drawn({ result: "timeout", queued_ms: 0 }),
      cancelled: drawn({ result: "cancelled", queued_ms: 0, first_byte_ms: 400 }),
      cooling: drawn({ result: "cooling", elapsed_ms: 0 }),
    };
  });
  assert.deepEqual(stretches, {
    retried: "queued 10-30, failed 30-130, pause 130-200, waiting 200-350, writing 350-500",
    silent: "failed 10-500",
    cancelled: "waiting 10-400, writing 400-500",
    cooling: "",
  });
  const numbers = await page.evaluate(async () => {
    const { duration, usd, listed } = await import("./console/format.js");
    return [[0.44, 999.4, 999.6, 9_996, 59_949, 59_950, 125_000].map(duration), [0, 0.00001234, 0.0123, 0.999, 12.345].map(usd), listed(["a", "b", "c"])];
  });
  assert.deepEqual(numbers, [
    ["0.4 ms", "999 ms", "1.00 s", "10.0 s", "59.9 s", "1 min 00 s", "2 min 05 s"],
    ["$0", "$0.0000123", "$0.0123", "$1.00", "$12.35"],
    "a, b and c",
  ]);
  await reader.leave();
}

// Who asked for little motion sees none, also while a run goes on.
async function stillness(browser) {
  const reader = await Reader.open(browser, "wide", "light", { reducedMotion: "reduce" });
  await reader.go("");
  const run = ask("vote", "still");
  await reader.page.locator("tbody tr.is-running").waitFor();
  assert.equal(await reader.page.evaluate(() => document.getAnimations().length), 0);
  await run.answer;
  await reader.leave();
}

const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox"] });
try {
  let round = 0;
  for (const form of Object.keys(WIDTHS)) {
    for (const light of LIGHTS) {
      const reader = await Reader.open(browser, form, light);
      await { decisions, playground, models }[way](reader, round);
      await reader.leave();
      round += 1;
    }
  }
  if (way === "decisions") {
    await stillness(browser);
    await parts(browser);
  }
} finally {
  await browser.close();
}
