/** How the views write: only what has changed, and never as HTML. */

export const byId = (id) => document.getElementById(id);

const MINUS = '\u2212';

export function make(tag, className = '', ...cells) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...cells);
  return element;
}

export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

const MOST_CHARS = 66; // as many as a price may have

/** The venue's digits, every one, in groups of three. Anything else stays as it is. */
export function grouped(digits) {
  if (digits.length > MOST_CHARS) return `${digits.slice(0, MOST_CHARS)}…`;
  const found = /^([-+]?)(\d+)(\.\d+)?$/.exec(digits);
  if (!found) return digits;
  const [, sign, whole, fraction = ''] = found;
  return (sign === '-' ? MINUS : '') + whole.replace(/\B(?=(\d{3})+$)/g, ',') + fraction;
}

/** A number with all its digits; zeros at the end are there, but step back. */
export function putDigits(element, digits) {
  if (element.digits === digits) return;
  element.digits = digits;
  const text = grouped(digits);
  const [zeros] = /\.0+$|(?<=\.\d*[1-9])0+$/.exec(text) ?? [''];
  if (!element.lastElementChild) element.replaceChildren(new Text(), make('span', 'zeros'));
  element.firstChild.data = text.slice(0, text.length - zeros.length);
  element.lastChild.textContent = zeros;
}

/** A change in per cent. With more than three decimals it is rounded to two, and says in full what it was. */
export function putChange(element, digits) {
  if (element.digits === digits) return;
  element.digits = digits;
  const value = Number(digits);
  if (digits === '' || Number.isNaN(value)) return put(element, '');
  const long = /\.\d{4}/.test(digits);
  const shown = long ? value.toFixed(2) : digits;
  put(element, `${value > 0 ? '+' : ''}${grouped(shown)}\u2009%`);
  mark(element, 'title', long ? `${digits} %` : null);
  mark(element, 'data-move', Math.sign(value) > 0 ? 'up' : value < 0 ? 'down' : null);
}

export function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 1) return '<1\u2009s';
  if (s < 60) return `${s}\u2009s`;
  if (s < 3600) return `${Math.floor(s / 60)}\u2009min ${String(s % 60).padStart(2, '0')}\u2009s`;
  return `${Math.floor(s / 3600)}\u2009h ${String(Math.floor(s / 60) % 60).padStart(2, '0')}\u2009min`;
}

/** The rows of a table body or list by key, made when they are first needed; `fill` writes into one. */
export function rows(parent, build) {
  const known = new Map();
  return (keys, fill) => {
    const shown = keys.map((key) => {
      let row = known.get(key);
      if (!row) known.set(key, (row = build(key)));
      fill(row, key);
      return row.element;
    });
    const there = parent.children;
    if (shown.length !== there.length || shown.some((element, at) => element !== there[at])) {
      const focused = document.activeElement;
      parent.replaceChildren(...shown);
      if (parent.contains(focused)) focused.focus({preventScroll: true});
    }
    if (known.size > 2 * keys.length + 50) for (const key of known.keys()) if (!keys.includes(key)) known.delete(key);
  };
}

/** Rows of a list of names with a number each, its element in `value`. */
export const figures = (parent) => rows(parent, (name) => {
  const value = make('dd', 'num');
  return {element: make('div', '', make('dt', '', name), value), value};
});
