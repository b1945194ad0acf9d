// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en");
const clockTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const shortDay = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const dayAndTime = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export const NONE = "–";

// 0.4 ms, 420 ms, 4.21 s, 2 min 05 s.
export function duration(ms) {
  if (ms === undefined || ms === null || Number.isNaN(ms)) return NONE;
  if (ms < 10) return `${Number(ms.toFixed(1))} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 9_995) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  return long(Math.round(ms / 1000));
}

// Whole seconds: 9 s, 2 min 05 s, 1 h 02 min.
export function long(seconds) {
  const two = (n) => String(n).padStart(2, "0");
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${two(Math.floor((seconds % 3600) / 60))} min`;
}

export function count(n) {
  return n === undefined || n === null ? NONE : whole.format(n);
}

// Three digits that say something, as a call may cost a hundredth of a cent.
export function usd(amount) {
  if (amount === undefined || amount === null) return NONE;
  if (amount === 0) return "$0";
  if (amount >= 0.995) return `$${amount.toFixed(2)}`;
  const digits = Math.min(9, Math.max(3, 2 - Math.floor(Math.log10(amount))));
  return `$${amount.toFixed(digits)}`;
}

export function percent(share) {
  return share === undefined || share === null ? NONE : `${Math.round(share * 100)} %`;
}

// At most two decimals, none where they are zeros.
export function number(value) {
  return value === undefined || value === null ? NONE : String(Number(value.toFixed(2)));
}

// The time of day, with the day where it is not today's.
export function clock(unixMs) {
  if (!unixMs) return NONE;
  const isToday = new Date(unixMs).toDateString() === new Date().toDateString();
  return isToday ? clockTime.format(unixMs) : `${shortDay.format(unixMs)}, ${clockTime.format(unixMs)}`;
}

export function moment(unixMs) {
  return unixMs ? dayAndTime.format(unixMs) : NONE;
}

// "1 answer", "3 answers".
export function plural(n, one, many = `${one}s`) {
  return `${whole.format(n)} ${n === 1 ? one : many}`;
}

// "a", "a and b", "a, b and c".
export function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
