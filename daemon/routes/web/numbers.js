// Numbers as text: every digit that says something, no zeros that end the decimals, and nothing like a number where there
// is none.

const MINUS = '−';
const NONE = '–';
const PERCENT = '\u2009%';
const MOST_CHARS = 66; // as many as a price may have
const MOST_TICKS = 40;
const [DIGIT_WIDE, POINT_WIDE] = ['\u2007', '\u2008']; // spaces as wide as a digit and a point
const MOST_DECIMALS = 30;

// Text, or a number as text; '' for anything else that may stand in JSON.
export const word = (said) => (['string', 'number'].includes(typeof said) ? String(said) : '');

// The number that is said; NaN for what is none.
export function value(said) {
  const number = Number(word(said).trim() || NaN);
  return Number.isFinite(number) ? number : NaN;
}

export const isNumber = (said) => !Number.isNaN(value(said));

// All digits, in groups of three, without exponent. What is no number stays as it is.
export function grouped(said) {
  const text = word(said);
  if (text.length > MOST_CHARS) return `${text.slice(0, MOST_CHARS)}…`;
  const [, sign, whole, fraction, power = 0] = /^([-+]?)(\d+)\.?(\d*)(?:e([-+]?\d+))?$/i.exec(text) ?? [];
  const point = whole?.length + Number(power);
  if (!(Math.abs(point) <= MOST_CHARS)) return text;
  const digits = `${'0'.repeat(Math.max(0, 1 - point))}${whole}${fraction}`.padEnd(point, '0');
  const units = digits.slice(0, Math.max(1, point)).replace(/^0+(?=\d)/, '');
  const decimals = digits.slice(Math.max(1, point));
  return `${sign === '-' ? MINUS : ''}${units.replace(/\B(?=(\d{3})+$)/g, ',')}${decimals && `.${decimals}`}`;
}

// The same without zeros that end the decimals: they say how a venue writes, and nothing of the size.
export function plain(said) {
  const text = grouped(said);
  return /^−?[\d,]+\.\d+$/.test(text) ? text.replace(/\.?0+$/, '') : text;
}

// How many decimals say something: of the prices of an instrument, as many as its tick size has.
export const decimals = (said) => Math.min(MOST_DECIMALS, /^−?[\d,]+\.(\d+)$/.exec(plain(said))?.[1].length ?? 0);

// The same as `plain`, with room for the decimals that others in its column have, so that points stand below each other.
export function inColumn(said, most) {
  const text = plain(said);
  const has = decimals(text);
  if (!/\d$/.test(text) || has >= most) return text;
  return `${text}${has ? '' : POINT_WIDE}${DIGIT_WIDE.repeat(most - has)}`;
}

// A change in per cent: with more than three decimals it is rounded to two, and `full` has them all.
export function percent(said) {
  if (!isNumber(said)) return {text: '', full: null, move: null};
  const full = grouped(said) + PERCENT;
  const text = plain(/\.\d{4}/.test(full) ? value(said).toFixed(2) : said) + PERCENT;
  if (!/[1-9]/.test(text)) return {text: `0${PERCENT}`, full, move: null};
  return value(said) > 0 ? {text: `+${text}`, full, move: 'up'} : {text, full, move: 'down'};
}

// By how much the higher price is above the lower one, where that can be said.
export function spread(low, high) {
  const apart = ((high / low - 1) * 100).toFixed(3);
  return low > 0 && isNumber(apart) ? plain(apart) + PERCENT : NONE;
}

// `price` minus `other`, with no more decimals than they have.
export function difference(price, other) {
  const apart = (price - other).toFixed(Math.max(decimals(price), decimals(other)));
  return isNumber(apart) ? plain(apart) : NONE;
}

export function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const [hours, minutes] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  if (Number.isNaN(s)) return NONE;
  if (s < 1) return '<1\u2009s';
  if (s < 60) return `${s}\u2009s`;
  if (!hours) return `${minutes}\u2009min ${String(s % 60).padStart(2, '0')}\u2009s`;
  return `${hours}\u2009h ${String(minutes).padStart(2, '0')}\u2009min`;
}

// A time of the day, where the page is.
export const clock = (at, seconds) => new Date(at).toLocaleTimeString('en-GB').slice(0, seconds ? 8 : 5);

// About `count` round prices from low to high, with their text. Counted: a step may be lost in a large price.
export function ticks(low, high, count) {
  const power = 10 ** Math.floor(Math.log10((high - low) / count));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power * count >= high - low); // as rulers have them
  const places = Math.min(MOST_DECIMALS, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  const first = Math.ceil(low / step);
  const length = Math.max(0, Math.min(Math.ceil(high / step) - first, MOST_TICKS) || 0);
  const prices = Array.from({length}, (_, at) => (first + at) * step);
  return prices.map((price) => [price, plain(price.toFixed(places))]);
}
