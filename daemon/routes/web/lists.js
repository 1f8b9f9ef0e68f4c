/** The whole market: figures, the largest coins, what people search for. */

import {byId, figures, make, mark, put, putChange, putDigits, rows} from './dom.js';
import {exactly, lists} from './market.js';

const SHARES = 6;
const MOST_ROWS = 250; // more than is asked for

/** The `data` of the newest message, with each number as the venue's digits; parsed once. */
function data(list) {
  const newest = lists[list];
  newest.data ??= exactly(newest.text).data;
  return newest.data;
}

const FIGURES = {
  'Market capitalisation, USD': ({total_market_cap}) => total_market_cap?.usd,
  'Its change in 24 h': (all) => [all.market_cap_change_percentage_24h_usd],
  'Volume in 24 h, USD': ({total_volume}) => total_volume?.usd,
  'Coins': (all) => all.active_cryptocurrencies,
  'Markets': (all) => all.markets,
};
const showFigures = figures(byId('figures'));
const showShares = rows(byId('shares'), (symbol) => {
  const share = make('span', 'num');
  return {element: make('li', '', make('span', 'name', symbol.toUpperCase()), share), share};
});

export function renderMarket() {
  const all = data('market');
  showFigures(Object.keys(FIGURES), ({value}, name) => {
    const digits = FIGURES[name](all);
    if (Array.isArray(digits)) putChange(value, digits[0] ?? '');
    else putDigits(value, digits ?? '');
  });
  const shares = Object.entries(all.market_cap_percentage ?? {}).slice(0, SHARES);
  showShares(shares.map(([symbol]) => symbol), (row, symbol) => {
    const digits = all.market_cap_percentage[symbol];
    put(row.share, `${Number(digits).toFixed(2)}\u2009%`);
    mark(row.element, 'title', `${digits} %`);
    row.element.style.setProperty('--share', Number(digits) / 100);
  });
}

const COLUMNS = [
  ['#', 'market_cap_rank', 1],
  ['Coin', 'name', 1],
  ['USD', 'current_price', -1],
  ['24 h', 'price_change_percentage_24h', -1],
  ['Market cap', 'market_cap', -1],
  ['Volume 24 h', 'total_volume', -1],
].map(([name, key, first]) => ({name, key, first, number: key !== 'name'}));
let sort = {column: COLUMNS[0], direction: 1};
let heads = null;

function setUpHeads() {
  heads = COLUMNS.map((column) => {
    const button = make('button', '', column.name);
    button.onclick = () => {
      sort = {column, direction: sort.column === column ? -sort.direction : column.first};
      renderTop();
    };
    const head = make('th', column.number ? 'n' : '', button);
    head.scope = 'col';
    return {column, head};
  });
  byId('top-head').append(...heads.map(({head}) => head));
}

const showTop = rows(byId('top-rows'), () => {
  const cells = COLUMNS.map(({number}, at) => make(at === 1 ? 'th' : 'td', number ? 'n num' : '', ''));
  cells[1].scope = 'row';
  const [name, symbol] = [make('b', ''), make('span', 'muted')];
  cells[1].append(name, ' ', symbol);
  return {element: make('tr', '', ...cells), cells, name, symbol};
});

const nothing = (value) => (value ?? '') === '';

function inOrder(a, b) {
  const {column: {key, number}, direction} = sort;
  if (nothing(a[key]) || nothing(b[key])) return nothing(a[key]) - nothing(b[key]); // unknown ones last, either way
  return direction * (number ? a[key] - b[key] : String(a[key]).localeCompare(b[key], 'en'));
}

export function renderTop() {
  if (!heads) setUpHeads();
  for (const {column, head} of heads) {
    mark(head, 'aria-sort', sort.column === column ? (sort.direction > 0 ? 'ascending' : 'descending') : null);
  }
  if (!lists.top) return;
  const coins = new Map(data('top').coins.slice(0, MOST_ROWS).map((coin) => [coin.id, coin]));
  const ids = [...coins.values()].sort(inOrder).map(({id}) => id);
  showTop(ids, ({cells, name, symbol}, id) => {
    const coin = coins.get(id);
    COLUMNS.forEach(({key, number}, at) => {
      if (number) (key.includes('change') ? putChange : putDigits)(cells[at], coin[key] ?? '');
    });
    put(name, coin.name);
    put(symbol, coin.symbol.toUpperCase());
  });
}

const showTrending = rows(byId('trending-rows'), () => {
  const [name, symbol] = [make('b', ''), make('span', 'muted')];
  const head = make('th', '', name, ' ', symbol);
  head.scope = 'row';
  const [price, change] = [make('td', 'n num'), make('td', 'n num')];
  return {element: make('tr', '', head, price, change), name, symbol, price, change};
});

export function renderTrending() {
  const coins = new Map(data('trending').coins.slice(0, MOST_ROWS).map(({item}) => [item.id, item]));
  showTrending([...coins.keys()], (row, id) => {
    const {name, symbol, data: about} = coins.get(id);
    put(row.name, name);
    put(row.symbol, symbol);
    putDigits(row.price, String(about?.price ?? ''));
    putChange(row.change, about?.price_change_percentage_24h?.usd ?? '');
  });
}
