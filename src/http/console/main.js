// Puts the views together: which one is shown is the address's hash, so that each can be linked to.

import { h, icon, render } from "./dom.js";
import { Decisions } from "./decisions.js";
import { Feed, isRunning } from "./feed.js";
import { plural } from "./format.js";
import { Models } from "./models.js";
import { Playground } from "./playground.js";
import { spoken } from "./words.js";

// Between two drawings, in ms: what comes in bursts is drawn once.
const GAP = 120;
// Between two announcements to those who hear the page.
const QUIET = 5000;
// How long a hidden page goes on listening, in ms.
const PATIENCE = 60_000;

const element = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const feed = new Feed();
const views = {
  decisions: new Decisions(feed, element("view-decisions")),
  models: new Models(element("view-models")),
  playground: new Playground(feed, element("view-playground")),
};
let current = null;
let pending = false;

function route(isFirst) {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...segments] = path.split("/").map(decoded);
  const wanted = Object.hasOwn(views, name) ? name : "decisions";
  for (const [other, view] of Object.entries(views)) {
    element(`view-${other}`).hidden = other !== wanted;
    if (other === wanted) element(`nav-${other}`).setAttribute("aria-current", "page");
    else {
      element(`nav-${other}`).removeAttribute("aria-current");
      view.hide?.();
    }
  }
  const changed = current !== views[wanted];
  current = views[wanted];
  current.show(segments, new URLSearchParams(query), isFirst);
  document.title = `${current.title} · Consort`;
  if (changed && !isFirst) scrollTo(0, 0);
}

// A hash may hold anything that somebody has typed.
function decoded(segment) {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

function draw() {
  pending = false;
  current?.draw();
}

function schedule() {
  if (pending) return;
  pending = true;
  setTimeout(draw, GAP);
}

function tick() {
  if (!document.hidden && current?.isMoving()) draw();
  setTimeout(tick, calm.matches ? 1000 : 250);
}

const connections = {
  connecting: ["running", "connecting"],
  live: ["ok", "live"],
  resting: ["cancelled", "resting"],
  broken: ["warning", "connection lost, trying again"],
};

function showConnection() {
  const [shape, words] = connections[feed.state];
  render(element("connection"), h("span", { class: `state ${feed.state}` }, icon(shape), words));
}

async function showVersion() {
  const answer = await fetch("version");
  if (!answer.ok) return;
  const { version } = await answer.json();
  render(element("version"), version ?? "");
}

let unheard = [];

function announce(decision) {
  if (!decision || isRunning(decision)) return;
  if (unheard.length === 0) setTimeout(tell, QUIET);
  unheard.push(decision);
}

function tell() {
  const last = unheard.at(-1);
  render(element("announcer"), `${plural(unheard.length, "new decision")}, the last one of ${last.alias}: ${spoken(last.outcome)}`);
  unheard = [];
}

feed.addEventListener("change", ({ detail }) => {
  schedule();
  announce(detail);
});
feed.addEventListener("state", () => {
  showConnection();
  schedule();
});
let resting = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(resting);
  if (document.hidden) resting = setTimeout(() => feed.rest(), PATIENCE);
  else if (feed.state === "resting") feed.start();
});
addEventListener("hashchange", () => route(false));
element("skip").addEventListener("click", (event) => {
  // The hash is the route.
  event.preventDefault();
  element("main").focus();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.defaultPrevented && current.escape()) event.preventDefault();
});

route(true);
showConnection();
feed.start();
tick();
showVersion().catch((error) => console.warn("the version could not be read:", error.message));
