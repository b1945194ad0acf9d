// What keeps readers out and can be told without eyes. Runs in the page, so that it stands alone: no imports, no names
// from around it.

export function barriers() {
  const found = [];
  const name = (element) => `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ""}.${element.getAttribute("class") ?? ""} "${element.textContent.trim().slice(0, 40)}"`;
  const isShown = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest(".unseen, .skip");

  // Text that does not stand out from what is behind it: less than 4.5 to 1.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const pixel = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([red, green, blue]) => {
    const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = pixel(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return pixel("Canvas");
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !isShown(element) || element.closest(":disabled, script, symbol")) continue;
    const [one, other] = [light(pixel(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) found.push(`contrast ${contrast.toFixed(2)}: ${name(element)}`);
  }

  // Controls without a name.
  for (const control of document.querySelectorAll("a, button, select, input, textarea, summary, meter, [role=region]")) {
    const label = control.getAttribute("aria-label") || control.textContent.trim() || control.labels?.[0]?.textContent.trim();
    const isField = ["SELECT", "INPUT", "TEXTAREA"].includes(control.tagName);
    if (isShown(control) && !(isField ? control.labels?.[0]?.textContent.trim() : label)) found.push(`no name: ${name(control)}`);
  }

  // Ids that are not one element's.
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  for (const id of ids.filter((one, at) => ids.indexOf(one) !== at)) found.push(`id twice: ${id}`);

  // Headings that leave a level out; not one first heading.
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].filter(isShown).map((heading) => Number(heading.tagName[1]));
  levels.forEach((level, at) => at > 0 && level > levels[at - 1] + 1 && found.push(`a heading of level ${level} after ${levels[at - 1]}`));

  // Landmarks, and cells that are a table's whatever they look like.
  for (const landmark of ["header", "nav[aria-label]", "main", "[aria-live=polite]"]) {
    if (!document.querySelector(landmark)) found.push(`no ${landmark}`);
  }
  for (const table of document.querySelectorAll("table")) {
    const isFlat = getComputedStyle(table).display !== "table";
    if (isFlat && [...table.querySelectorAll("tr, td, th, tbody, thead")].some((part) => !part.hasAttribute("role"))) found.push("a table that is none to a screen reader");
  }
  return found;
}
