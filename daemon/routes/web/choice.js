// What is looked at: an instrument, a venue, a range of time, a line or candles. It stands in the page's address, so that a
// link to it can be shared; and the instrument with its price in the tab's title.

import {byId, mark, options, put} from './dom.js';
import {channels, instruments, prices, ranked} from './market.js';
import {plain} from './numbers.js';
import {isPaused, touchNow, view} from './paint.js';

export const RANGES_MS = {'5m': 5 * 60_000, '1h': 60 * 60_000, '1d': 24 * 60 * 60_000};
export const LIVE = '5m'; // the range that needs no candles
const STYLES = ['line', 'candles'];
const VIEWS = ['book', 'trade', 'candle'];

const asked = {instrument: '', venue: '', range: LIVE, style: STYLES[0]};
function readAddress() {
  const query = new URLSearchParams(location.search);
  asked.instrument = query.get('instrument') ?? '';
  asked.venue = query.get('venue') ?? '';
  asked.range = query.get('range') in RANGES_MS ? query.get('range') : LIVE;
  asked.style = STYLES.includes(query.get('style')) ? query.get('style') : STYLES[0];
}

function writeAddress() {
  const query = new URLSearchParams(location.search);
  const said = {instrument: asked.instrument, venue: asked.venue, range: asked.range, style: asked.style};
  for (const [name, value] of Object.entries(said)) {
    query.delete(name); // they stand in this order, whichever came first
    if (value && value !== LIVE && value !== STYLES[0]) query.set(name, value);
  }
  const text = `${query}`.replaceAll('%2F', '/');
  const address = `${location.pathname}${text && `?${text}`}${location.hash}`;
  if (address !== location.pathname + location.search + location.hash) history.pushState(null, '', address);
}

// Look at something else: any of `instrument`, `venue`, `range`, `style`.
export function choose(what) {
  if (what.instrument && what.instrument !== instrument()) what = {venue: '', ...what};
  Object.assign(asked, what);
  writeAddress();
  tell();
}

function tell() {
  touchNow('instruments', 'prices', 'venues', 'book', 'depth', 'trades', 'chart');
}

// The instrument: the one that was asked for, or the first there is.
export function instrument() {
  const names = instruments();
  return names.includes(asked.instrument) ? asked.instrument : names[0] ?? '';
}

// By venue, the channel of each view that has this instrument. One that pushes goes before one that is polled.
function offers(instrument) {
  const found = new Map();
  for (const [name, {listed, view, source, instruments, cadence_s}] of channels) {
    if (!listed || !VIEWS.includes(view) || !instruments.includes(instrument)) continue;
    if (!found.has(source)) found.set(source, {});
    const offer = found.get(source);
    if (!offer[view] || channels.get(offer[view]).cadence_s !== null && cadence_s === null) offer[view] = name;
  }
  return found;
}

// The venue: the one that was asked for, or the one that has most to show; '' where none has more than a price.
export function venue() {
  const found = offers(instrument());
  if (found.has(asked.venue)) return asked.venue;
  const most = Math.max(...[...found.values()].map((offer) => Object.keys(offer).length));
  return [...found.keys()].find((name) => Object.keys(found.get(name)).length === most) ?? '';
}

// The channel of this view that is looked at; undefined where nobody has one.
export const chosen = (view) => offers(instrument()).get(venue())?.[view];

// Candles may reach further back than prices do.
export const range = () => (chosen('candle') ? asked.range : LIVE);
export const style = () => (chosen('candle') ? asked.style : STYLES[0]);

// The price of what is looked at: of the venue that was asked for, also if it has nothing else; or of one that has a price.
export function shownPrice() {
  const of = (venue) => prices.get(`${instrument()} ${venue}`);
  return of(asked.venue) ?? of(venue()) ?? ranked().find((row) => row.instrument === instrument());
}

let titleAt = 0;

// The title goes on in a tab that nobody looks at, where nothing is drawn.
export function title() {
  if (performance.now() - titleAt < 1000 && document.title !== 'tickerd') return;
  titleAt = performance.now();
  const row = isPaused() ? undefined : shownPrice();
  const said = row ? `${plain(row.digits)} ${row.instrument} · tickerd` : isPaused() ? 'paused · tickerd' : 'tickerd';
  if (document.title !== said) document.title = said;
}

view('instruments', () => {
  const names = instruments();
  const venues = [...offers(instrument()).keys()];
  options(byId('instrument'), names, instrument());
  options(byId('venue'), venues, venue());
  byId('venue').disabled = !venues.length;
  const has = Boolean(chosen('candle'));
  for (const button of document.querySelectorAll('[name=range], [name=style]')) {
    const plainOne = [LIVE, STYLES[0]].includes(button.value);
    button.disabled = !has && !plainOne;
    button.checked = [range(), style()].includes(button.value);
  }
  const missing = asked.instrument && names.length && !names.includes(asked.instrument);
  const notes = [
    missing && `This daemon has no ${asked.instrument}.`,
    names.length && !has && `No channel here has candles of ${instrument()}, so its chart has the last 5 minutes only.`,
  ];
  put(byId('chart-note'), notes.filter(Boolean).join(' '));
  mark(byId('chart-note'), 'hidden', notes.some(Boolean) ? null : '');
}, {always: true});

byId('instrument').onchange = ({target}) => choose({instrument: target.value});
byId('venue').onchange = ({target}) => choose({venue: target.value, instrument: instrument()});
for (const button of document.querySelectorAll('[name=range], [name=style]')) {
  button.onchange = () => choose({[button.name]: button.value, instrument: instrument()});
}
addEventListener('popstate', () => {
  readAddress();
  tell();
});
readAddress();
