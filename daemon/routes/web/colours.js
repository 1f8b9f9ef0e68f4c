// Light or dark, as the system has it or as was chosen here; and the style sheet's colours, as canvases need them.

import {byId} from './dom.js';
import {touchNow} from './paint.js';
import {store, stored} from './storage.js';

const THEMES = ['auto', 'light', 'dark'];
const known = new Map(); // name: the colour, until the theme changes
const choice = byId('theme');

// Canvases know nothing of custom properties: the browser works each colour out on an element that nobody sees.
export function colour(name) {
  if (!known.has(name)) {
    const probe = byId('probe');
    probe.style.color = `var(--${name})`;
    known.set(name, getComputedStyle(probe).color);
  }
  return known.get(name);
}

function change() {
  known.clear();
  const {value} = choice;
  if (value === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
  touchNow('chart', 'depth', 'sparks');
}

const before = stored('theme', 'auto');
choice.value = THEMES.includes(before) ? before : 'auto';
choice.onchange = () => {
  store('theme', choice.value);
  change();
};
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', change);
change();
