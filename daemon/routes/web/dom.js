// How the views are drawn: once a frame, only what has changed, and never as HTML.

import {inParts, percent} from './numbers.js';

const views = {};
const touched = new Set();
let frame = 0;

// `draw` belongs to the view of that name, which is drawn after it was touched.
export const view = (name, draw) => (views[name] ??= []).push(draw);

export function touch(name) {
  touched.add(name);
  frame ||= requestAnimationFrame(render);
}

function render() {
  const due = [...touched].flatMap((name) => views[name] ?? []);
  touched.clear();
  frame = 0;
  for (const draw of due) {
    try {
      draw();
    } catch (error) {
      reportError(error); // the others go on
    }
  }
}

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

export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

const changed = (write) => (element, digits) => {
  if (element.digits !== digits) write(element, (element.digits = digits));
};

// A number with all its digits; zeros at the end are there, but step back.
export const putDigits = changed((element, digits) => {
  if (!element.lastElementChild) element.replaceChildren(new Text(), make('span', 'zeros'));
  [element.firstChild.data, element.lastChild.textContent] = inParts(digits);
});

// A change in per cent; one that is rounded says in full what it was.
export const putChange = changed((element, digits) => {
  const {text, full, move} = percent(digits);
  put(element, text);
  mark(element, 'title', full);
  mark(element, 'data-move', move);
});

// The rows of a table body or list by key, made when they are first needed; `fill` writes into one.
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

// Rows of a list of names with a number each, its element in `value`.
export const figures = (parent) => rows(parent, (name) => {
  const value = make('dd');
  return {element: make('div', '', make('dt', '', name), value), value};
});
