// Elements without HTML. Whatever comes from outside becomes text or an attribute's value, never markup.

const LISTENERS = Symbol("listeners");
const VARIABLES = Symbol("variables");
const KEY = Symbol("key");
const SVG = "http://www.w3.org/2000/svg";

// An element. `on` holds listeners, `css` custom properties, `key` what tells it from its siblings; the rest are
// attributes, left out where they are null, undefined or false.
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute === "on") listen(element, value);
    else if (attribute === "css") paint(element, value);
    else if (attribute === "key") element[KEY] = value;
    else if (value === true) element.setAttribute(attribute, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(attribute, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// One of the symbols in index.html.
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

// Text for those who do not see the page.
export function unseen(text) {
  return h("span", { class: "unseen" }, text);
}

// Makes the container's children these, keeping the elements that are there: focus, scrolling, selections and
// transitions survive what is drawn again several times a second.
export function render(container, ...children) {
  const next = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  morphChildren(container, next.map((child) => (child instanceof Node ? child : document.createTextNode(child))));
}

// As render, for long lists: only items that are not those of last time are built.
export function renderItems(container, items, keyOf, isSame, build) {
  container.drawn ??= new Map();
  const drawn = new Map();
  let at = container.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    const before = container.drawn.get(key);
    let element = before?.element;
    if (!element) {
      element = build(item);
      container.insertBefore(element, at);
    } else {
      if (!isSame(before.item, item)) morph(element, build(item));
      if (element === at) at = at.nextSibling;
      else container.insertBefore(element, at);
    }
    drawn.set(key, { item, element });
    container.drawn.delete(key);
  }
  for (const { element } of container.drawn.values()) element.remove();
  container.drawn = drawn;
}

function listen(element, listeners) {
  element[LISTENERS] ??= {};
  for (const [type, listener] of Object.entries(listeners)) {
    if (!(type in element[LISTENERS])) element.addEventListener(type, heard);
    element[LISTENERS][type] = listener;
  }
}

// One listener per element and type, whose meaning is looked up: what was drawn again is heard by its newest data.
function heard(event) {
  event.currentTarget[LISTENERS][event.type]?.(event);
}

// Through the object model, which the page's policy lets pass where it refuses style attributes.
function paint(element, variables) {
  for (const name of Object.keys(element[VARIABLES] ?? {})) {
    if (!(name in variables)) element.style.removeProperty(name);
  }
  for (const [name, value] of Object.entries(variables)) {
    if (element[VARIABLES]?.[name] !== value) element.style.setProperty(name, value);
  }
  element[VARIABLES] = variables;
}

function isSameKind(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && one[KEY] === other[KEY];
}

function morph(element, next) {
  if (element.nodeType === Node.TEXT_NODE) {
    if (element.data !== next.data) element.data = next.data;
    return;
  }
  for (const { name } of [...element.attributes]) {
    // What the reader has opened stays open; `style` holds the custom properties.
    if (name !== "open" && name !== "style" && !next.hasAttribute(name)) element.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (name !== "open" && name !== "style" && element.getAttribute(name) !== value) element.setAttribute(name, value);
  }
  if (next[VARIABLES] || element[VARIABLES]) paint(element, next[VARIABLES] ?? {});
  if (next[LISTENERS]) listen(element, next[LISTENERS]);
  morphChildren(element, [...next.childNodes]);
}

function morphChildren(container, next) {
  const keyed = new Map();
  for (const child of container.childNodes) if (child[KEY] !== undefined) keyed.set(child[KEY], child);
  let at = container.firstChild;
  for (const child of next) {
    const known = child[KEY] === undefined ? at : keyed.get(child[KEY]);
    if (known && isSameKind(known, child)) {
      morph(known, child);
      if (known === at) at = at.nextSibling;
      else container.insertBefore(known, at);
    } else {
      container.insertBefore(child, at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}
