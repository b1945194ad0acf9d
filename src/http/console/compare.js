// Texts side by side: which words differ, and which text is the most like the others.

// Words and what is between them. Beyond this many, texts are not compared word by word.
const MAX_TOKENS = 4000;

function tokens(text) {
  return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
}

// Runs of `{kind: "same" | "added" | "missing", text}` that make `text` out of `base`; null when that is too much.
export function difference(base, text) {
  const [from, to] = [tokens(base), tokens(text)];
  if (from.length > MAX_TOKENS || to.length > MAX_TOKENS) return null;
  let begin = 0;
  while (begin < from.length && begin < to.length && from[begin] === to[begin]) begin += 1;
  let end = 0;
  while (end < Math.min(from.length, to.length) - begin && from.at(-1 - end) === to.at(-1 - end)) end += 1;
  const runs = new Runs();
  runs.add("same", from.slice(0, begin));
  compareMiddle(runs, from.slice(begin, from.length - end), to.slice(begin, to.length - end));
  runs.add("same", from.slice(from.length - end));
  return runs.list;
}

// The longest common subsequence; table[i][j] is its length for what follows i and j.
function compareMiddle(runs, from, to) {
  const width = to.length + 1;
  const table = new Uint16Array((from.length + 1) * width);
  for (let i = from.length - 1; i >= 0; i -= 1) {
    for (let j = to.length - 1; j >= 0; j -= 1) {
      table[i * width + j] = from[i] === to[j]
        ? table[(i + 1) * width + j + 1] + 1
        : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
    }
  }
  let [i, j] = [0, 0];
  while (i < from.length || j < to.length) {
    if (i < from.length && j < to.length && from[i] === to[j]) {
      runs.add("same", [from[i]]);
      i += 1;
      j += 1;
    } else if (j >= to.length || (i < from.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) {
      runs.add("missing", [from[i]]);
      i += 1;
    } else {
      runs.add("added", [to[j]]);
      j += 1;
    }
  }
}

class Runs {
  list = [];

  add(kind, words) {
    if (words.length === 0) return;
    const last = this.list.at(-1);
    if (last?.kind === kind) last.text += words.join("");
    else this.list.push({ kind, text: words.join("") });
  }
}

// The share of word pairs that two texts have in common, as Consort compares texts itself.
export function similarity(one, other) {
  const [a, b] = [pairs(one), pairs(other)];
  const common = [...a].filter((pair) => b.has(pair)).length;
  const all = a.size + b.size - common;
  return all === 0 ? 1 : common / all;
}

function pairs(text) {
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  if (words.length === 1) return new Set(words);
  return new Set(words.slice(1).map((word, index) => `${words[index]} ${word}`));
}

// The place of the text that is most like all others.
export function medoid(texts) {
  const likeness = texts.map((text) => texts.reduce((sum, other) => sum + similarity(text, other), 0));
  return likeness.indexOf(Math.max(...likeness));
}
