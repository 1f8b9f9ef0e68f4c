// Elements and what is written into them: only what has changed, and never as HTML.

import {decimals, inColumn, percent, word} from './numbers.js';

export const byId = (id) => document.getElementById(id);

export function make(tag, className = '', ...cells) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...cells);
  return element;
}

export function rowHead(...cells) {
  const head = make('th', '', ...cells);
  head.scope = 'row';
  return head;
}

// What was written last is remembered: to ask the document would cost more than to write.
export function put(element, text) {
  if (element.said === text) return;
  element.said = text;
  if (element.firstChild?.nodeType === Node.TEXT_NODE && !element.firstChild.nextSibling) element.firstChild.data = text;
  else element.textContent = text;
}

export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// A number without zeros that end its decimals, in a column of numbers with `most` decimals. On hover it says all its digits.
export function putDigits(element, digits, most = 0) {
  if (element.digits === digits && element.most === most) return;
  Object.assign(element, {digits, most});
  put(element, inColumn(digits, most));
  if (element.title) element.title = word(digits);
}

// Of several elements with a number each: the decimals of the one that has most.
export const mostDecimals = (numbers) => Math.max(0, ...numbers.map(decimals));

// A change in per cent; one that is rounded says in full what it was.
export function putChange(element, digits) {
  if (element.digits === digits) return;
  element.digits = digits;
  const {text, move} = percent(digits);
  put(element, text);
  mark(element, 'data-move', move);
  if (element.title) element.title = word(digits);
}

// The exact value is looked up when somebody points at it, not each time that it changes.
document.addEventListener('pointerover', ({target}) => {
  if (target.digits !== undefined) target.title = word(target.digits);
});
document.addEventListener('pointerout', ({target}) => {
  if (target.digits !== undefined) target.removeAttribute('title');
});

// The rows of a table body or list by key, made when they are first needed; `fill` writes into one.
export function rows(parent, build) {
  const known = new Map();
  let before = [];
  return (keys, fill) => {
    const shown = keys.map((key) => {
      let row = known.get(key);
      if (!row) known.set(key, (row = build(key)));
      fill(row, key);
      return row.element;
    });
    if (shown.length !== before.length || shown.some((element, at) => element !== before[at])) {
      const focused = document.activeElement;
      parent.replaceChildren(...(before = shown));
      if (parent.contains(focused)) focused.focus({preventScroll: true});
    }
    if (known.size > 2 * keys.length + 50) for (const key of known.keys()) if (!keys.includes(key)) known.delete(key);
  };
}

// Rows of a list of names with a number each, its element in `value`.
export const figures = (parent) => rows(parent, (name) => {
  const value = make('dd');
  return {element: make('div', '', make('dt', '', name), value), value};
});

// What can be chosen from a list, and what is chosen.
export function options(list, names, chosen) {
  const said = names.join('\n');
  if (list.names !== said) {
    list.names = said;
    list.replaceChildren(...names.map((name) => new Option(name)));
  }
  if (list.value !== chosen) list.value = chosen;
}
